#include "wire/record_batches.h"

#include "simd/kernels/crc32c.h"
#include "simd/simd.h"
#include "wire/varint.h"

namespace springtide {
namespace {

constexpr size_t kLengthAt = 8, kLengthEnd = 12, kMagicAt = 16, kSumAt = 17, kSummedAt = 21, kHeaderBytes = 61;
constexpr size_t kSmallestRecord = 7;
constexpr size_t kMostBytes = INT32_MAX;

template <typename T>
T big_endian(const uint8_t* bytes) {
    uint64_t value = 0;
    for (size_t i = 0; i < sizeof(T); ++i) value = value << 8 | bytes[i];
    return static_cast<T>(value);
}

RecordBatch header_of(const uint8_t* set, size_t begin, size_t end) {
    const uint8_t* at = set + begin;
    RecordBatch batch;
    batch.base_offset = big_endian<int64_t>(at);
    batch.attributes = big_endian<uint16_t>(at + 21);
    batch.last_offset_delta = big_endian<int32_t>(at + 23);
    batch.first_ms = big_endian<int64_t>(at + 27);
    batch.largest_ms = big_endian<int64_t>(at + 35);
    batch.producer_id = big_endian<int64_t>(at + 43);
    batch.records = big_endian<int32_t>(at + 57);
    batch.begin = static_cast<int64_t>(begin + kHeaderBytes);
    batch.end = static_cast<int64_t>(end);
    return batch;
}

bool sum_holds(const uint8_t* batch, size_t size) {
    const uint32_t found =
        simd::at_level([&](auto level) { return crc32c(level, batch + kSummedAt, size - kSummedAt); });
    return found == big_endian<uint32_t>(batch + kSumAt);
}

void append(std::vector<uint8_t>& out, const uint8_t* begin, const uint8_t* end) { out.insert(out.end(), begin, end); }

// Reads over the headers of a record; what they say is for who wants them.
void pass_headers(Bytes& bytes) {
    const int64_t count = bytes.take_varint();
    if (count < 0 || static_cast<uint64_t>(count) > bytes.left()) bytes.good = false;
    for (int64_t i = 0; i < count && bytes.good; ++i) {
        bytes.take(bytes.take_varint());
        const int64_t size = bytes.take_varint();
        if (size != -1) bytes.take(size);
    }
}

// One record, whose bytes these are. `last` is the offset delta of the one before.
Wrong decode_record(const RecordBatch& batch, Bytes bytes, int64_t start, int64_t& last, RecordColumns& out) {
    bytes.take(1);  // attributes, of which there are none
    const int64_t time_delta = bytes.take_varint(), offset_delta = bytes.take_varint(), key = bytes.take_varint();
    if (key != -1) bytes.take(key);
    const int64_t size = bytes.take_varint();
    const uint8_t* value = size == -1 ? bytes.at : bytes.take(size);
    const uint8_t* headers = bytes.at;
    pass_headers(bytes);
    if (!bytes.good || bytes.at != bytes.end) return "has a record that does not fill its length";
    if (offset_delta <= last || offset_delta > batch.last_offset_delta) return "has records out of order";
    last = offset_delta;
    int64_t offset, time_ms = batch.largest_ms;
    if (__builtin_add_overflow(batch.base_offset, offset_delta, &offset)) return "has offsets beyond 64 bits";
    if (!(batch.attributes & kAppendTime) && __builtin_add_overflow(batch.first_ms, time_delta, &time_ms))
        return "has times beyond 64 bits";
    if (offset < start) return nullptr;
    if (size > 0) append(out.values, value, value + size);
    if (bytes.end - headers > 1) append(out.headers, headers, bytes.end);
    if (out.values.size() > kMostBytes || out.headers.size() > kMostBytes) return "has more than 2 GiB of values";
    out.offsets.push_back(offset);
    out.times_ms.push_back(time_ms);
    out.value_ends.push_back(static_cast<int32_t>(out.values.size()));
    out.header_ends.push_back(static_cast<int32_t>(out.headers.size()));
    return nullptr;
}

}  // namespace

Wrong find_batches(std::span<const uint8_t> set, std::vector<RecordBatch>& out) {
    size_t begin = 0;
    while (set.size() - begin >= kLengthEnd) {
        const int32_t length = big_endian<int32_t>(set.data() + begin + kLengthAt);
        if (length < 0) return "has a negative length";
        const size_t size = kLengthEnd + static_cast<size_t>(length);
        if (size > set.size() - begin) break;
        if (size <= kMagicAt) return "is shorter than a header";
        if (set[begin + kMagicAt] != 2) return "is not of format 2";
        if (size < kHeaderBytes) return "is shorter than a header";
        if (!sum_holds(set.data() + begin, size)) return "does not match its checksum";
        const RecordBatch batch = header_of(set.data(), begin, begin + size);
        if (batch.records < 0 || batch.last_offset_delta < 0) return "has a negative number of records";
        out.push_back(batch);
        begin += size;
    }
    return nullptr;
}

Wrong decode_records(const RecordBatch& batch, std::span<const uint8_t> given, int64_t start, RecordColumns& out) {
    if (static_cast<uint64_t>(batch.records) > given.size() / kSmallestRecord)
        return "has fewer bytes than its records need";
    Bytes bytes{given.data(), given.data() + given.size()};
    int64_t last = -1;
    for (int32_t i = 0; i < batch.records; ++i) {
        const int64_t size = bytes.take_varint();
        const uint8_t* at = bytes.take(size);
        if (!bytes.good) return "ends inside a record";
        if (const Wrong wrong = decode_record(batch, {at, at + size}, start, last, out)) return wrong;
    }
    return bytes.at == bytes.end ? nullptr : "goes on behind its records";
}

}  // namespace springtide
