// Avro events without Python: one golden row, every truncation of it, and undecoded rows that leave no values.
#include "wire/avro_events.h"

#include <string>
#include <vector>

#include "tests/expect.h"

namespace {

using namespace springtide;

const std::vector<AvroField> kFields{
    {AvroKind::integer, false}, {AvroKind::string, false}, {AvroKind::boolean, false},  {AvroKind::real, false},
    {AvroKind::string, true},     {AvroKind::boolean, true}, {AvroKind::integer, true},
};

// Schema 258 at 3 ms: -2, "ab", true, 1.0, ["c", ""], [false, true], null.
const std::string kRow("\0\0\0\1\2\6\2\3\2\4ab\2\1\2\0\0\0\0\0\0\xF0\x3F\2\4\2c\0\0\2\4\0\1\0\0", 35);

AvroEvents decode(const std::vector<std::string>& rows) {
    std::vector<int32_t> offsets{0};
    std::string values;
    for (const std::string& row : rows) {
        values += row;
        offsets.push_back(static_cast<int32_t>(values.size()));
    }
    const std::vector<uint8_t> exact(values.begin(), values.end());
    return decode_events(kFields, 258, offsets, exact.data());
}

void expect_the_row_n_times(const AvroEvents& found, size_t n) {
    expect(found.times_ms == std::vector<int64_t>(n, 3), "times");
    expect(found.columns[0].words == std::vector<int64_t>(n, -2), "integers");
    expect(found.columns[1].bytes.size() == 2 * n && found.columns[1].ends.size() == n, "strings");
    expect(found.columns[2].bytes == std::vector<uint8_t>(n, 1), "booleans");
    expect(found.columns[3].words == std::vector<int64_t>(n, 0x3FF0000000000000), "doubles");
    expect(found.columns[4].item_ends.size() == 2 * n && found.columns[4].bytes.size() == n, "lists of strings");
    expect(found.columns[5].bytes.size() == 2 * n && found.columns[5].ends.size() == n, "lists of booleans");
    expect(found.columns[6].words.empty() && found.columns[6].valid == std::vector<uint8_t>(n, 0), "a null list");
    for (const AvroColumn& column : found.columns) expect(column.valid.size() == n, "validity of every row");
}

void a_row_becomes_columns() {
    const AvroEvents found = decode({kRow});
    expect(found.undecoded.empty(), "decoded");
    expect_the_row_n_times(found, 1);
}

void truncated_and_too_long_rows_leave_no_values() {
    std::vector<std::string> rows;
    for (size_t size = 0; size < kRow.size(); ++size) {
        rows.push_back(kRow.substr(0, size));
        rows.push_back(kRow);
    }
    rows.push_back(kRow + '\0');
    const AvroEvents found = decode(rows);
    expect(found.undecoded.size() == kRow.size() + 1, "every truncated row");
    expect_the_row_n_times(found, kRow.size());
}

void another_schema_is_not_decoded() {
    std::string other = kRow;
    other[4] = 3;
    expect(decode({other}).undecoded == std::vector<int64_t>{0}, "schema 259");
}

void utf8_is_as_defined_by_unicode() {
    const auto holds = [](const std::string& text) {
        return is_utf8(reinterpret_cast<const uint8_t*>(text.data()), text.size());
    };
    for (const char* valid : {"", "plain text of more than eight", "\xC3\xA9", "\xED\x9F\xBF", "\xF4\x8F\xBF\xBF"})
        expect(holds(valid), valid);
    for (const char* invalid : {"\x80", "\xC3", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xF0\x8F\xBF\xBF",
                            "\xF4\x90\x80\x80", "\xE2\x82", "12345678\xFF"})
        expect(!holds(invalid), invalid);
}

}  // namespace

int main() {
    a_row_becomes_columns();
    truncated_and_too_long_rows_leave_no_values();
    another_schema_is_not_decoded();
    utf8_is_as_defined_by_unicode();
}
