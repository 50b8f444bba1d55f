// Kafka's record batches, format v2, from the bytes of a fetch response to columns.
//
//   batch   base offset 8, length 4, leader epoch 4, magic 1 (= 2), CRC-32C 4 (of all that follows), attributes 2,
//           last offset delta 4, first time 8, largest time 8, producer id 8, producer epoch 2, first sequence 4,
//           records 4, then the records, as a whole compressed or not. Big endian.
//   record  length, attributes 1, time delta, offset delta, key length and key, value length and value, number of
//           headers, headers (key length and key, value length and value). All numbers zigzag varints, length -1: null.
//
// Two steps, for compression is a library's business: find_batches() gives the batches and checks their sums, and
// decode_records() takes the records of those that count, each from its (decompressed) bytes. Nothing inside the bytes is
// trusted. Pure functions, safe from any thread, linear time; memory in proportion to the bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace springtide {

// The header of a batch, and where its records lie in the set: bytes [begin, end).
struct RecordBatch {
    int64_t base_offset, first_ms, largest_ms, producer_id;
    int64_t begin, end;
    int32_t last_offset_delta, records;
    uint16_t attributes;
};

constexpr uint16_t kCodecMask = 7, kAppendTime = 8, kTransactional = 16, kControl = 32;

// What is wrong with bytes: null where nothing is. Says so in words that follow "the batch at offset N".
using Wrong = const char*;

// The batches of `set` in order into `out`, up to the first that is wrong. One that is cut off by the end of the set is
// left out: brokers cut.
[[nodiscard]] Wrong find_batches(std::span<const uint8_t> set, std::vector<RecordBatch>& out);

// Records as columns: values and headers lie end to end, row i of them from ends[i - 1] (0 for the first) to ends[i].
struct RecordColumns {
    std::vector<int64_t> offsets, times_ms;
    std::vector<int32_t> value_ends;
    std::vector<uint8_t> values;  // a null value is empty
    std::vector<int32_t> header_ends;
    std::vector<uint8_t> headers;  // as in the record, their number first; nothing where there are none
};

// Appends the records of `batch` with offsets from `start` on; `bytes` are its records, decompressed. Where something is
// wrong the rows of this batch are partly there.
[[nodiscard]] Wrong decode_records(const RecordBatch& batch, std::span<const uint8_t> bytes, int64_t start,
                                   RecordColumns& out);

}  // namespace springtide
