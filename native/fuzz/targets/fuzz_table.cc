// Arbitrary packed rows: imported and returned byte for byte, or rejected with the table unchanged.
#include <stdexcept>

#include "fuzz/input.h"
#include "table/table.h"

namespace {

springtide::Table make(const char* kind, size_t dim) {
    return springtide::Table(dim, springtide::make_optimizer(kind, {0.1f, 0.1f}), {7, 0.5f}, 500);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
    Input input(bytes, size);
    springtide::Table table = make(input.take<uint8_t>() % 2 ? "adagrad" : "rowwise_adagrad", 1 + input.take_size(20));
    const std::vector<uint64_t> keys = input.take_many<uint64_t>(input.take_size(8));
    const std::vector<std::byte> packed = input.take_many<std::byte>(keys.size() * table.row_bytes());
    try {
        table.import_rows(keys, packed.data());
    } catch (const std::invalid_argument&) {
        must(table.size() == 0 && table.scan_digest() == 0, "a rejected import changes nothing");
        return 0;
    }
    std::vector<std::byte> back(packed.size());
    table.rows(keys, back.data());
    must(back == packed, "rows are returned unchanged");
    must(table.digest() == table.scan_digest(), "the digest is up to date");
    return 0;
}
