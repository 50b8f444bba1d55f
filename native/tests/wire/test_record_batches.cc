// Record batches without Python: one golden batch, its checksum at every level, and every truncation of it.
#include "wire/record_batches.h"

#include <cstring>
#include <string>

#include "simd/kernels/crc32c.h"
#include "simd/simd.h"
#include "tests/expect.h"

namespace {

using namespace springtide;

uint32_t checksum(const uint8_t* bytes, size_t n) {
    return simd::at_level([&](auto level) { return crc32c(level, bytes, n); });
}

void put(std::vector<uint8_t>& out, uint64_t value, int bytes) {
    for (int i = bytes - 1; i >= 0; --i) out.push_back(static_cast<uint8_t>(value >> 8 * i));
}

// A batch at offset 1000 with two records, at 5000 and 5003 ms: "ab" under key "k" with a header, and a null value.
std::vector<uint8_t> two_records() {
    std::vector<uint8_t> checksummed;
    put(checksummed, 0, 2);             // attributes
    put(checksummed, 4, 4);             // last offset delta
    put(checksummed, 5000, 8);          // first timestamp
    put(checksummed, 5003, 8);          // largest timestamp
    put(checksummed, UINT64_MAX, 8);    // producer id
    put(checksummed, 0xFFFF, 2);        // producer epoch
    put(checksummed, UINT32_MAX, 4);    // first sequence
    put(checksummed, 2, 4);             // records
    const std::string first{"\0\0\0\2k\4ab\2\2h\1", 12}, second{"\0\6\10\1\1\0", 6};
    for (const std::string& record : {first, second}) {
        checksummed.push_back(static_cast<uint8_t>(record.size() * 2));
        checksummed.insert(checksummed.end(), record.begin(), record.end());
    }
    std::vector<uint8_t> batch;
    put(batch, 1000, 8);
    put(batch, checksummed.size() + 9, 4);
    put(batch, 0, 4);
    batch.push_back(2);
    put(batch, checksum(checksummed.data(), checksummed.size()), 4);
    batch.insert(batch.end(), checksummed.begin(), checksummed.end());
    return batch;
}

void a_batch_becomes_columns() {
    const std::vector<uint8_t> set = two_records();
    std::vector<RecordBatch> batches;
    expect(find_batches(set, batches) == nullptr && batches.size() == 1, "one batch");
    RecordColumns out;
    const std::vector<uint8_t> bytes(set.begin() + batches[0].begin, set.begin() + batches[0].end);
    expect(decode_records(batches[0], bytes, 1000, out) == nullptr, "two valid records");
    expect(out.offsets == std::vector<int64_t>{1000, 1004}, "offsets");
    expect(out.times_ms == std::vector<int64_t>{5000, 5003}, "times");
    expect(out.value_ends == std::vector<int32_t>{2, 2} && std::memcmp(out.values.data(), "ab", 2) == 0, "values");
    expect(out.header_ends == std::vector<int32_t>{4, 4}, "headers");
    RecordColumns later;
    expect(decode_records(batches[0], bytes, 1001, later) == nullptr, "from offset 1001");
    expect(later.offsets.size() == 1, "offsets of at least 1001");
}

void truncated_records_are_rejected() {
    const std::vector<uint8_t> set = two_records();
    std::vector<RecordBatch> batches;
    expect(find_batches(set, batches) == nullptr, "found");
    for (int64_t end = batches[0].begin; end < batches[0].end; ++end) {
        const std::vector<uint8_t> bytes(set.begin() + batches[0].begin, set.begin() + end);
        RecordColumns out;
        expect(decode_records(batches[0], bytes, 0, out) != nullptr, "truncated");
    }
}

void a_truncated_set_has_no_batch() {
    const std::vector<uint8_t> set = two_records();
    for (size_t size = 0; size < set.size(); ++size) {
        const std::vector<uint8_t> cut(set.begin(), set.begin() + static_cast<std::ptrdiff_t>(size));
        std::vector<RecordBatch> batches;
        expect(find_batches(cut, batches) == nullptr && batches.empty(), "omitted");
    }
}

void the_checksum_is_crc32c() {
    const char* digits = "123456789";  // the check value of the CRC catalogue
    expect(checksum(reinterpret_cast<const uint8_t*>(digits), 9) == 0xE3069283, "check value");
    std::vector<uint8_t> bytes(300);
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i * 7);
    for (size_t n = 0; n <= bytes.size(); ++n)
        expect(checksum(bytes.data(), n) == crc32c(simd::Portable{}, bytes.data(), n), "the same as the tables");
}

}  // namespace

int main() {
    a_batch_becomes_columns();
    truncated_records_are_rejected();
    a_truncated_set_has_no_batch();
    the_checksum_is_crc32c();
}
