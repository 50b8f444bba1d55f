#include "wire/record_batches.h"

#include "simd/kernels/crc32c.h"
#include "simd/simd.h"
#include "wire/varint.h"

namespace springtide {
namespace {

// Byte offsets in the header of a batch.
constexpr size_t kLengthAt = 8, kLengthEnd = 12, kMagicAt = 16, kChecksumAt = 17, kChecksummedAt = 21;
constexpr size_t kHeaderBytes = 61;
constexpr size_t kMinRecordBytes = 7;
constexpr size_t kMaxBytes = INT32_MAX;

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

bool checksum_matches(const uint8_t* batch, size_t size) {
    const uint32_t checksum =
        simd::at_level([&](auto level) { return crc32c(level, batch + kChecksummedAt, size - kChecksummedAt); });
    return checksum == big_endian<uint32_t>(batch + kChecksumAt);
}

void append(std::vector<uint8_t>& out, const uint8_t* begin, const uint8_t* end) { out.insert(out.end(), begin, end); }

// Skips the headers of a record, which are not decoded here.
void skip_headers(ByteReader& reader) {
    const int64_t count = reader.read_varint();
    if (count < 0 || static_cast<uint64_t>(count) > reader.left()) reader.good = false;
    for (int64_t i = 0; i < count && reader.good; ++i) {
        reader.read(reader.read_varint());
        const int64_t size = reader.read_varint();
        if (size != -1) reader.read(size);
    }
}

// Decodes the record in `reader`. `last` is the offset delta of the previous record.
Defect decode_record(const RecordBatch& batch, ByteReader reader, int64_t start, int64_t& last, RecordColumns& out) {
    reader.read(1);  // attributes, unused by Kafka
    const int64_t time_delta = reader.read_varint(), offset_delta = reader.read_varint(), key = reader.read_varint();
    if (key != -1) reader.read(key);
    const int64_t size = reader.read_varint();
    const uint8_t* value = size == -1 ? reader.at : reader.read(size);
    const uint8_t* headers = reader.at;
    skip_headers(reader);
    if (!reader.good || reader.at != reader.end) return "has a record that does not fill its length";
    if (offset_delta <= last || offset_delta > batch.last_offset_delta) return "has records out of order";
    last = offset_delta;
    int64_t offset, time_ms = batch.largest_ms;
    if (__builtin_add_overflow(batch.base_offset, offset_delta, &offset)) return "has offsets beyond 64 bits";
    if (!(batch.attributes & kAppendTime) && __builtin_add_overflow(batch.first_ms, time_delta, &time_ms))
        return "has times beyond 64 bits";
    if (offset < start) return nullptr;
    if (size > 0) append(out.values, value, value + size);
    if (reader.end - headers > 1) append(out.headers, headers, reader.end);
    if (out.values.size() > kMaxBytes || out.headers.size() > kMaxBytes) return "has more than 2 GiB of values";
    out.offsets.push_back(offset);
    out.times_ms.push_back(time_ms);
    out.value_ends.push_back(static_cast<int32_t>(out.values.size()));
    out.header_ends.push_back(static_cast<int32_t>(out.headers.size()));
    return nullptr;
}

}  // namespace

Defect find_batches(std::span<const uint8_t> set, std::vector<RecordBatch>& out) {
    size_t begin = 0;
    while (set.size() - begin >= kLengthEnd) {
        const int32_t length = big_endian<int32_t>(set.data() + begin + kLengthAt);
        if (length < 0) return "has a negative length";
        const size_t size = kLengthEnd + static_cast<size_t>(length);
        if (size > set.size() - begin) break;
        if (size <= kMagicAt) return "is shorter than a header";
        if (set[begin + kMagicAt] != 2) return "is not of format 2";
        if (size < kHeaderBytes) return "is shorter than a header";
        if (!checksum_matches(set.data() + begin, size)) return "does not match its checksum";
        const RecordBatch batch = header_of(set.data(), begin, begin + size);
        if (batch.records < 0 || batch.last_offset_delta < 0) return "has a negative number of records";
        out.push_back(batch);
        begin += size;
    }
    return nullptr;
}

Defect decode_records(const RecordBatch& batch, std::span<const uint8_t> bytes, int64_t start, RecordColumns& out) {
    if (static_cast<uint64_t>(batch.records) > bytes.size() / kMinRecordBytes)
        return "has fewer bytes than its records need";
    ByteReader reader{bytes.data(), bytes.data() + bytes.size()};
    int64_t last = -1;
    for (int32_t i = 0; i < batch.records; ++i) {
        const int64_t size = reader.read_varint();
        const uint8_t* at = reader.read(size);
        if (!reader.good) return "ends inside a record";
        if (const Defect defect = decode_record(batch, {at, at + size}, start, last, out)) return defect;
    }
    return reader.at == reader.end ? nullptr : "goes on behind its records";
}

}  // namespace springtide
