// Decodes framed Avro records of one schema to columns. A record is a frame (byte 0, schema id as 4 bytes, big endian),
// a long, and fields that are each a union of null and a string, long, double, boolean or an array of one of these.
//
// A row is left undecoded, for a decoder with error messages, if it has another frame, excess bytes, invalid UTF-8, a
// boolean other than 0 and 1, or an array in sized blocks. Pure, thread-safe, linear time; the bytes are not trusted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace springtide {

enum class AvroKind : uint8_t { string, integer, real, boolean };

struct AvroField {
    AvroKind kind;
    bool list;
};

// Row i is null if valid[i] is 0. The string or list of row i ends at ends[i]. Values are concatenated: integers and
// the bits of doubles in `words`, booleans and strings in `bytes`; item_ends are the ends of strings in lists.
struct AvroColumn {
    std::vector<uint8_t> valid, bytes;
    std::vector<int32_t> ends, item_ends;
    std::vector<int64_t> words;
};

struct AvroEvents {
    std::vector<int64_t> times_ms;    // the long of each decoded row, in order
    std::vector<AvroColumn> columns;  // one per field, with the decoded rows
    std::vector<int64_t> undecoded;   // the other rows, ascending
};

// Row i is values[offsets[i]..offsets[i + 1]). Callers check that offsets ascend within the values.
AvroEvents decode_events(std::span<const AvroField> fields, uint32_t schema_id, std::span<const int32_t> offsets,
                         const uint8_t* values);

// Whether the bytes are well-formed UTF-8: no overlong forms, no surrogates, nothing above U+10FFFF.
bool is_utf8(const uint8_t* bytes, size_t n);

}  // namespace springtide
