// Arbitrary bytes as record sets: batches are found or rejected, and decoding stays within their bytes.
#include "fuzz/input.h"
#include "simd/kernels/crc32c.h"
#include "wire/record_batches.h"

namespace {

void put(uint8_t* at, uint64_t value, int bytes) {
    for (int i = bytes - 1; i >= 0; --i, value >>= 8) at[i] = static_cast<uint8_t>(value);
}

// Makes the header of the first batch valid, so that its records are decoded.
void seal(std::vector<uint8_t>& set) {
    if (set.size() < 61) return;
    put(&set[8], set.size() - 12, 4);
    set[16] = 2;
    put(&set[23], set[26], 4);
    put(&set[57], set[60] % 32, 4);
    put(&set[17], springtide::crc32c(springtide::simd::Portable{}, &set[21], set.size() - 21), 4);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
    Input input(bytes, size);
    const bool sealed = input.take<uint8_t>() % 4 != 0;
    const int64_t start = input.take<int16_t>();
    std::vector<uint8_t> set = input.take_many<uint8_t>(input.left());
    if (sealed) seal(set);
    std::vector<springtide::RecordBatch> batches;
    const springtide::Defect defect = springtide::find_batches(set, batches);
    must(defect == nullptr || !sealed || set.size() < 61, "a sealed batch is found");
    springtide::RecordColumns out;
    for (const springtide::RecordBatch& batch : batches) {
        must(batch.begin <= batch.end && static_cast<size_t>(batch.end) <= set.size(), "a batch is within its set");
        const std::vector<uint8_t> part(set.begin() + batch.begin, set.begin() + batch.end);  // a copy of exact size
        if (springtide::decode_records(batch, part, start, out) != nullptr) break;
    }
    const size_t n = out.offsets.size();
    const bool equal = out.times_ms.size() == n && out.value_ends.size() == n && out.header_ends.size() == n;
    must(equal, "columns of equal length");
    must(n == 0 || static_cast<size_t>(out.value_ends.back()) <= out.values.size(), "values end within their bytes");
    for (const int64_t offset : out.offsets) must(offset >= start, "no offset below the start");
    return 0;
}
