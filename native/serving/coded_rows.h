// The changed rows of one table as an entropy-coded stream (wire/entropy.h), and back.
//
// Rows are divided by precision (4, 8, 16, 32) and, within one, by kind: differences to the row that serving holds,
// known rows whose values are absolute, and rows that are new to serving. The stream holds, each class of integers with
// a running mean of its own:
//
//   counts     of removed keys; of differences, absolute and new rows of 4 bits, of 8, of 16, of 32
//   removed    key gaps
//   by precision, then by kind (differences, absolute, new), nothing for a kind without rows:
//     handles    of known rows, ascending: each minus the one before (the first minus 0)
//     new        handles of new rows, ascending: each minus the one before and 1 (the first minus 0), zigzag, modulo
//                2^32; then their keys in runs that ascend, as they got their handles: of two and more keys the number
//                of runs - 1 and the length - 1 of each but the last; run by run key gaps
//     exponents  except of differences and of 32 bits: each minus the one before (the first minus 0), zigzag
//     weights    row by row: mantissas, zigzag; at 32 bits the 32 bits of each float
//
// A key gap is the difference to the key before (the first to 0): with n keys and k = 64 - width(n) its part above the
// k low bits, in a scale, then these k bits. Every class begins with a new scale in every kind of every precision. A
// table without any change has no bytes.
//
// Pure functions over the caller's memory, thread-safe, linear in rows and bytes. Decoding is safe for any bytes.
// Throws std::bad_alloc.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace springtide {

// Known rows, which serving has already, then new rows; payloads (quantizer.h) are concatenated in that order.
struct DeltaRows {
    const uint32_t* handles;  // of the known rows
    const bool* relative;     // whether a known row is a difference; never at 32 bits
    size_t known_count;
    const uint64_t* new_keys;
    const uint32_t* new_handles;
    size_t new_count;
    const uint8_t* bits;  // precision of each row: 4, 8, 16 or 32
    const uint8_t* payload;
    const uint64_t* removed;
    size_t removed_count;
    size_t dim;
};

// The same, decoded: sorted by precision, differences before absolute rows, then by handle; new rows by precision and
// handle; removed keys ascending.
struct DecodedRows {
    std::vector<uint32_t> handles;
    std::vector<uint8_t> relative;
    std::vector<uint64_t> new_keys;
    std::vector<uint32_t> new_handles;
    std::vector<uint8_t> bits, payload;
    std::vector<uint64_t> removed;
};

// What a stream announces: removed keys; rows by precision (4, 8, 16, 32) and kind (difference, absolute, new).
struct RowCounts {
    uint32_t removed = 0;
    std::array<std::array<uint32_t, 3>, 4> rows = {};
};

// The counts at the begin of a stream, in constant time and memory; all 0 without a stream or if it ends too early.
RowCounts announced_rows(const uint8_t* coded, size_t size);

// The same rows in any order give the same bytes. Fewer than 2^32 rows of a kind.
std::vector<uint8_t> code_rows(const DeltaRows& rows);

// Returns null, or a description of the defect: then `rows` is unspecified. Requires 1 <= dim <= 65536. Takes memory for
// what is announced, and only if the stream is long enough for it: at most 576 bytes for each of its own,
// and those of new rows twice.
[[nodiscard]] const char* decode_rows(const uint8_t* coded, size_t size, size_t dim, DecodedRows& rows);

// Payloads in the order of rows order[0], order[1], ... Payload i has precision bits[i]; `order` has n values below n.
std::vector<uint8_t> reorder_payload(const uint8_t* payload, const uint8_t* bits, const int64_t* order, size_t n,
                                     size_t dim);

}  // namespace springtide
