// Framed Avro records of one schema to columns: a frame (byte 0, schema id in 4 bytes, big endian), a long, and then
// columns that are each a union of null and a string, long, double, boolean or an array of one of these.
//
// Only what is plainly right is decoded: a row with another frame, bytes left over, text that is no UTF-8, a boolean that
// is neither 0 nor 1 or an array in sized blocks is declined, whole, and left to a decoder that can say what is wrong.
// Pure, safe from any thread, linear time; nothing inside the bytes is trusted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace springtide {

enum class AvroKind : uint8_t { text, integer, number, truth };

struct AvroField {
    AvroKind kind;
    bool list;
};

// Row i is null where valid[i] is 0. Texts and lists of row i end at ends[i]; what they hold lies end to end: integers
// and numbers (as their bits) in `words`, truths in `bytes`, texts in `bytes` (in lists, ended by item_ends).
struct AvroColumn {
    std::vector<uint8_t> valid, bytes;
    std::vector<int32_t> ends, item_ends;
    std::vector<int64_t> words;
};

struct AvroEvents {
    std::vector<int64_t> times;          // of the rows that were decoded, in order
    std::vector<AvroColumn> columns;     // one per field, of so many rows
    std::vector<int64_t> declined;       // the other rows, ascending
};

// Row i lies at values[offsets[i]..offsets[i + 1]): offsets ascend inside the values, as callers check.
AvroEvents decode_events(std::span<const AvroField> fields, uint32_t schema_id, std::span<const int32_t> offsets,
                         const uint8_t* values);

// Whether these bytes are UTF-8 as Unicode defines it: no overlong forms, no surrogates, nothing above U+10FFFF.
bool is_utf8(const uint8_t* bytes, size_t n);

}  // namespace springtide
