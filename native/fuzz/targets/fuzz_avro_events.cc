// Arbitrary bytes as Avro rows: decoded rows fill all columns equally, undecoded rows leave no values.
#include "wire/avro_events.h"

#include "fuzz/input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
    Input input(bytes, size);
    std::vector<springtide::AvroField> fields(input.take_size(7));
    for (springtide::AvroField& field : fields) {
        const auto kind = input.take<uint8_t>();
        field = {static_cast<springtide::AvroKind>(kind % 4), kind % 8 >= 4};
    }
    const bool framed = input.take<uint8_t>() % 4 != 0;
    std::vector<int32_t> offsets{0};
    std::vector<uint8_t> values;
    while (!input.empty() && offsets.size() < 20) {
        if (framed) values.insert(values.end(), {0, 0, 0, 1, 2});
        const std::vector<uint8_t> body = input.take_many<uint8_t>(input.take<uint8_t>() % 48);
        values.insert(values.end(), body.begin(), body.end());
        offsets.push_back(static_cast<int32_t>(values.size()));
    }
    const auto events = springtide::decode_events(fields, 258, offsets, values.data());
    const size_t rows = events.times_ms.size();
    must(rows + events.undecoded.size() == offsets.size() - 1, "every row is decoded or undecoded");
    for (size_t f = 0; f < fields.size(); ++f) {
        const springtide::AvroColumn& column = events.columns[f];
        must(column.valid.size() == rows, "validity of every row");
        const bool ended = fields[f].list || fields[f].kind == springtide::AvroKind::string;
        must(column.ends.size() == (ended ? rows : 0), "an end for every string and list");
        const size_t items = !ended ? rows : rows == 0 ? 0 : static_cast<size_t>(column.ends.back());
        if (fields[f].kind == springtide::AvroKind::string) {
            must(column.item_ends.size() == (fields[f].list ? items : 0), "an end for every string in a list");
            const size_t text = !fields[f].list ? items : items == 0 ? 0 : static_cast<size_t>(column.item_ends.back());
            must(column.bytes.size() == text, "strings end within their bytes");
        } else {
            const bool boolean = fields[f].kind == springtide::AvroKind::boolean;
            must((boolean ? column.bytes.size() : column.words.size()) == items, "a value for every row or item");
        }
    }
    return 0;
}
