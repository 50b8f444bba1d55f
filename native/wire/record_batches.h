// Decodes Kafka record batches, format v2, from the bytes of a fetch response to columns.
//
//   batch   base offset 8, length 4, leader epoch 4, magic 1 (= 2), CRC-32C 4 (of all that follows), attributes 2,
//           last offset delta 4, first timestamp 8, largest timestamp 8, producer id 8, producer epoch 2,
//           first sequence 4, records 4, then the records, possibly compressed together. Big endian.
//   record  length, attributes 1, time delta, offset delta, key length and key, value length and value, number of
//           headers, headers (key length and key, value length and value). All numbers are zigzag varints; length -1
//           means null.
//
// There are two steps, because the caller decompresses in between: find_batches() finds the batches and verifies their
// checksums, decode_records() decodes the decompressed records of one batch. The bytes are not trusted. Pure functions,
// thread-safe, linear time; memory proportional to the bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace springtide {

// The header of a batch, and the range [begin, end) of its records in the record set.
struct RecordBatch {
    int64_t base_offset, first_ms, largest_ms, producer_id;
    int64_t begin, end;
    int32_t last_offset_delta, records;
    uint16_t attributes;
};

constexpr uint16_t kAppendTime = 8;  // attribute: the timestamps are the broker's append time

// Null, or a description of a defect that continues "the batch at offset N".
using Defect = const char*;

// Appends the batches of `set` to `out` in order, up to the first defective one. A batch truncated by the end of the
// set is omitted, because brokers truncate responses.
[[nodiscard]] Defect find_batches(std::span<const uint8_t> set, std::vector<RecordBatch>& out);

// Records as columns. Values and headers are concatenated: row i is [ends[i - 1], ends[i]), with 0 before the first.
struct RecordColumns {
    std::vector<int64_t> offsets, times_ms;
    std::vector<int32_t> value_ends;
    std::vector<uint8_t> values;  // a null value is empty
    std::vector<int32_t> header_ends;
    std::vector<uint8_t> headers;  // encoded as in the record, starting with their number; empty if there are none
};

// Appends the records of `batch` with offsets of at least `start`; `bytes` are its decompressed records. If a defect is
// returned, some rows of this batch may have been appended.
[[nodiscard]] Defect decode_records(const RecordBatch& batch, std::span<const uint8_t> bytes, int64_t start,
                                   RecordColumns& out);

}  // namespace springtide
