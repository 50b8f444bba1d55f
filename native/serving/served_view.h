// What serving holds of one field: for each key a payload (see quantizer.h) and a handle, the short name deltas use.
//
// The publisher keeps one to know what serving has; a replica keeps one to answer from.
//
// Threads: any number of readers beside one writer. Every call sees and leaves a whole state: a `put` is seen by a
// reader as a whole or not at all. Two calls are two states; who needs them as one locks outside. Readers who overlap
// without a pause can hold the writer up. Missing keys are answered with zeros, never an error. Cost is linear in the
// batch. An allocation that fails throws std::bad_alloc and may leave the first part of a batch put; so does the 2^30th
// row of one precision, with std::length_error.
//
// digest() is the sum mod 2^64 over all keys of XXH64(bits as one byte, payload; seed = key), kept up with every
// change. Handles do not enter it.
//
// Memory of a row: 12 bytes and its payload, 6.3 (8.5 in a small view) where its key is found, and 4.25 where it is
// found by handle too.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <shared_mutex>
#include <vector>

#include "table/chunked_rows.h"
#include "serving/handle_index.h"
#include "table/key_index.h"

namespace springtide {

// The hash of one entry, which the digest is a sum of. Not thread-safe.
class EntryHash {
public:
    explicit EntryHash(size_t dim);
    uint64_t operator()(uint64_t key, unsigned bits, const uint8_t* payload);

private:
    size_t dim_;
    std::vector<uint8_t> bytes_;  // bits and payload side by side
};

class ServedView {
public:
    // The handle of a key that has none.
    static constexpr uint32_t kNoHandle = 0xffffffff;

    // Rows as they are held: of a missing key kNoHandle, 0 bits and no payload.
    struct Exported {
        std::vector<uint32_t> handles;
        std::vector<uint8_t> bits;
        std::vector<uint8_t> payload;
    };

    // Wants 1 <= dim <= 65536. Without `by_handle` nothing is kept to find rows by handle: keys_of() goes over all rows,
    // and of handles in use put() only sees that two keys of the batch get the same one anew.
    ServedView(size_t dim, bool by_handle);

    // Holds payload and handle under each key from now on, instead of what was held before; of a key twice in the batch
    // the last. Payloads lie one after the other, each payload_bytes(bits[i], dim) long; bits are known precisions.
    // Returns n; or, nothing changed, an i whose handle is another key's, here or in the batch.
    [[nodiscard]] size_t put(const uint64_t* keys, const uint32_t* handles, const uint8_t* bits, const uint8_t* payload,
                             size_t n);

    // What digest() would be after remove(removed) and that put(), of which nothing is done. Returns n; or, the digest not
    // told, an i whose handle is another key's in the batch: whether it is one's that is held is not looked at.
    [[nodiscard]] size_t digest_after(const uint64_t* keys, const uint32_t* handles, const uint8_t* bits,
                                      const uint8_t* payload, size_t n, const uint64_t* removed, size_t removals,
                                      uint64_t* digest) const;

    // Forgets keys and their handles; returns how many were there.
    size_t remove(const uint64_t* keys, size_t n);

    // rows[i][0..dim) is the value of keys[i], zeros where it is missing.
    void decode(const uint64_t* keys, size_t n, float* rows) const;

    // How far a row of `dim` weights, rows[i * stride ..], is from what is held of keys[i]; of a missing key zeros are held.
    // moved[i] and length[i] are the lengths of the difference and of the row, bits[i] as in bits(); differs[i] tells
    // whether any weight differs, also where the difference is too small for its length to be a float.
    void compare(const uint64_t* keys, size_t n, const float* rows, size_t stride, float* moved, float* length,
                 uint8_t* bits, bool* differs) const;

    // decode(), bits() and handles() of the same keys in one look.
    void hold(const uint64_t* keys, size_t n, float* rows, uint8_t* bits, uint32_t* handles) const;

    // bits[i] of keys[i], 0 where it is missing; handles[i], kNoHandle where it is missing or has none.
    void bits(const uint64_t* keys, size_t n, uint8_t* bits) const;
    void handles(const uint64_t* keys, size_t n, uint32_t* handles) const;

    // keys[i] with handles[i]; known[i] is 0 and keys[i] 0 where no key has it.
    void keys_of(const uint32_t* handles, size_t n, uint64_t* keys, bool* known) const;

    Exported export_rows(const uint64_t* keys, size_t n) const;

    // All keys, ascending.
    std::vector<uint64_t> keys() const;

    uint64_t digest() const;
    size_t size() const;
    size_t payload_total() const;  // bytes of all payloads
    size_t memory_bytes() const;   // what view, index and free cells take
    size_t dim() const { return dim_; }

private:
    // A place names a cell: its row in the pool of its precision, and which pool that is, in the two low bits.
    using Place = uint32_t;

    // Cells are key u64, handle u32, payload.
    struct Cell {
        uint64_t key;
        uint32_t handle;
    };

    // How the index of keys reads a cell.
    struct KeyAt {
        const ServedView& view;
        uint64_t operator()(Place place) const { return read(view.cell_at(place)).key; }
        [[gnu::always_inline]] void prefetch(Place place) const { __builtin_prefetch(view.cell_at(place)); }
    };
    static Cell read(const std::byte* cell);
    const std::byte* cell_at(Place place) const { return pools_[place & 3][place >> 2]; }
    const uint8_t* payload_at(Place place) const;
    std::vector<Place> places_of(const uint64_t* keys, size_t n) const;
    size_t conflict_in(const uint64_t* keys, const uint32_t* handles, const std::vector<Place>& places) const;
    bool is_free(uint32_t handle) const { return !by_handle_ || (*by_handle_)[handle] == HandleIndex::kNoPlace; }
    HandleIndex all_handles() const;
    void come_near(const uint64_t* keys, const Place* places, size_t n) const;
    void put_row(uint64_t key, Place place, uint32_t handle, unsigned bits, const uint8_t* payload);
    Place take_cell(unsigned bits);
    void drop(uint64_t key, Place place);
    uint64_t held_hash(uint64_t key, Place place);

    const size_t dim_;
    mutable std::shared_mutex mutex_;
    std::array<ChunkedRows, 4> pools_;
    KeyIndex by_key_;
    std::optional<HandleIndex> by_handle_;
    EntryHash hash_;  // the writer's
    uint64_t digest_ = 0;
    size_t payload_total_ = 0;
};

}  // namespace springtide
