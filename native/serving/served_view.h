// ServedView: the served rows of one table. For each key it stores a payload (see quantizer.h) and a handle, the short
// key that deltas use. The publisher has one that mirrors serving; a replica serves lookups from one.
//
// Threads: any number of readers and one writer at a time. Each call is atomic: a reader sees all or nothing of a
// put(). Several calls are not atomic together; callers that require it use a lock. Continuous overlapping reads can
// delay the writer. Missing keys: zeros, never an error. Cost: linear in the batch.
// Failure: std::bad_alloc, or std::length_error for the 2^30th row of one precision; the first part of the batch may
// have been put.
//
// digest() is the sum modulo 2^64 over all keys of XXH64(bits as one byte, payload; seed = key), updated with every
// change. It does not cover handles.
//
// Memory per row: 12 bytes and the payload, 6.3 bytes (8.5 in a small view) for the index of keys, and 4.25 bytes for
// the optional index of handles.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <vector>

#include "serving/coded_rows.h"
#include "serving/handle_index.h"
#include "table/chunked_rows.h"
#include "table/index/key_index.h"

namespace springtide {

// The hash of one row; the digest is the sum of these. Not thread-safe.
class RowHash {
public:
    explicit RowHash(size_t dim);
    uint64_t operator()(uint64_t key, unsigned bits, const uint8_t* payload);

private:
    size_t dim_;
    std::vector<uint8_t> bytes_;  // scratch for bits and payload
};

class ServedView {
public:
    // The handle of a key without one.
    static constexpr uint32_t kNoHandle = 0xffffffff;

    // Stored rows. A missing key has kNoHandle, 0 bits and no payload.
    struct Exported {
        std::vector<uint32_t> handles;
        std::vector<uint8_t> bits;
        std::vector<uint8_t> payload;
    };

    // Requires 1 <= dim <= 65536. Without `by_handle` there is no index of handles: keys_of() scans all rows, and put()
    // detects a handle conflict only between two new handles in the batch.
    ServedView(size_t dim, bool by_handle);

    // Stores payload and handle of each key, replacing earlier ones; the last one of a key repeated in the batch.
    // Payloads are concatenated, each payload_bytes(bits[i], dim) long; bits are 4, 8, 16 or 32.
    // Returns n; or, with nothing changed, an i whose handle belongs to another key, in the view or in the batch.
    [[nodiscard]] size_t put(const uint64_t* keys, const uint32_t* handles, const uint8_t* bits, const uint8_t* payload,
                             size_t n);

    // Computes digest() as it would be after remove(removed) and put() with these arguments; changes nothing. Returns
    // n; or, with *digest not set, an i whose handle belongs to another key in the batch. Handles in the view are not
    // checked.
    [[nodiscard]] size_t digest_after(const uint64_t* keys, const uint32_t* handles, const uint8_t* bits,
                                      const uint8_t* payload, size_t n, const uint64_t* removed, size_t removed_count,
                                      uint64_t* digest) const;

    // A place identifies a cell: the number of its pool, one per precision, in the two low bits, its row above.
    using Place = uint32_t;

    // What stage() found of a change.
    struct Staged {
        // A row whose handle no stored row has; a difference to a row of another precision or of floats; a new row whose
        // handle is that of another key in the change.
        enum class Defect { kNone, kUnknownHandle, kNoDifference, kHandleInUse };

        Defect defect = Defect::kNone;
        size_t at = 0;  // the row with the defect
        std::vector<uint64_t> keys;    // of all rows, known ones first
        std::vector<Place> places;     // of the known rows
        std::vector<uint8_t> payload;  // of all rows, absolute
        uint64_t digest = 0;           // after apply()
        uint64_t changes = 0;          // of the view, at stage()
        bool distinct = false;         // no key or handle occurs twice, and new ones are not stored
    };

    // Resolves the handles of a change, adds the stored rows to its differences and computes the digest that apply() of
    // it leads to; changes nothing. Requires an index of handles. Whether a new row has the handle of another stored key
    // is left to apply().
    Staged stage(const DeltaRows& rows) const;

    // Removes keys and stores rows as remove() and put() would, mostly without computing hashes. False, with no row
    // stored, if the view was changed after stage() of the same rows, or a handle belongs to another key.
    [[nodiscard]] bool apply(const DeltaRows& rows, const Staged& staged);

    // Removes keys and their handles; returns the number removed.
    size_t remove(const uint64_t* keys, size_t n);

    // rows[i][0..dim) is the decoded row of keys[i]; zeros if missing.
    void decode(const uint64_t* keys, size_t n, float* rows) const;

    // Compares rows of `dim` weights, row i at rows + i * stride, with the stored row of keys[i], zeros if missing.
    // moved[i] and length[i] are the lengths of the difference and of the row, bits[i] as in bits(); differs[i] is
    // whether any weight differs, even if the length of the difference underflows to 0.
    void compare(const uint64_t* keys, size_t n, const float* rows, size_t stride, float* moved, float* length,
                 uint8_t* bits, bool* differs) const;

    // exponents[i] of the row of keys[i] (integers.h); 0 if missing or of 32 bits.
    void exponents(const uint64_t* keys, size_t n, int8_t* exponents) const;

    // Payloads of n rows of distinct keys, concatenated, become differences to the stored rows where relative[i]: the
    // key has a row of the same precision, below 32 bits, and the same exponent.
    void differences(const uint64_t* keys, const uint8_t* bits, size_t n, uint8_t* payload, bool* relative) const;

    // decode(), bits() and handles() of the same keys, with one probe per key.
    void read(const uint64_t* keys, size_t n, float* rows, uint8_t* bits, uint32_t* handles) const;

    // bits[i] of keys[i], 0 if missing; handles[i] of keys[i], kNoHandle if missing or without a handle.
    void bits(const uint64_t* keys, size_t n, uint8_t* bits) const;
    void handles(const uint64_t* keys, size_t n, uint32_t* handles) const;

    // keys[i] is the key with handles[i]; if there is none, known[i] is false and keys[i] is 0.
    void keys_of(const uint32_t* handles, size_t n, uint64_t* keys, bool* known) const;

    Exported export_rows(const uint64_t* keys, size_t n) const;

    // All keys, ascending.
    std::vector<uint64_t> keys() const;

    uint64_t digest() const;
    size_t size() const;
    size_t payload_total() const;  // bytes of all payloads
    size_t memory_bytes() const;   // of cells, free ones included, and indexes
    size_t dim() const { return dim_; }

private:
    using ReadLock = std::shared_lock<std::shared_mutex>;
    using WriteLock = std::unique_lock<std::shared_mutex>;

    // The layout of a cell is key u64, handle u32, payload.
    struct CellHeader {
        uint64_t key;
        uint32_t handle;
    };

    // Reads keys from cells for the index of keys.
    struct KeyAt {
        const ServedView& view;
        uint64_t operator()(Place place) const { return header_of(view.cell_at(place)).key; }
        [[gnu::always_inline]] void prefetch(Place place) const { __builtin_prefetch(view.cell_at(place)); }
    };
    static constexpr size_t kHeaderBytes = 12;
    static CellHeader header_of(const std::byte* cell) {
        CellHeader header;
        std::memcpy(&header.key, cell, sizeof(header.key));
        std::memcpy(&header.handle, cell + sizeof(header.key), sizeof(header.handle));
        return header;
    }
    const std::byte* cell_at(Place place) const { return pools_[place & 3][place >> 2]; }
    const uint8_t* payload_at(Place place) const {
        return reinterpret_cast<const uint8_t*>(cell_at(place)) + kHeaderBytes;
    }
    uint8_t* stored_payload(Place place) {
        return reinterpret_cast<uint8_t*>(pools_[place & 3][place >> 2]) + kHeaderBytes;
    }
    static unsigned bits_of(Place place) { return 4u << (place & 3); }
    void stage_known(const DeltaRows& rows, Staged& staged) const;
    void stage_new_and_removed(const DeltaRows& rows, Staged& staged) const;
    std::vector<Place> places_of(const uint64_t* keys, size_t n) const;
    size_t conflict_in(const uint64_t* keys, const uint32_t* handles, const std::vector<Place>& places) const;
    size_t batch_conflict_in(const uint64_t* keys, const uint32_t* handles, const std::vector<Place>& places,
                             size_t n) const;
    bool keeps_handle(Place place, uint32_t handle) const {
        return place != kNoRow && header_of(cell_at(place)).handle == handle;
    }
    bool is_free(uint32_t handle) const { return !by_handle_ || (*by_handle_)[handle] == HandleIndex::kNoPlace; }
    HandleIndex all_handles() const;
    void prefetch_cells(const uint64_t* keys, const Place* places, size_t n) const;
    [[gnu::always_inline]] void prefetch_ahead(const std::vector<Place>& places, size_t i) const {
        constexpr size_t kAhead = 16;
        if (i + kAhead < places.size() && places[i + kAhead] != kNoRow)
            __builtin_prefetch(cell_at(places[i + kAhead]));
    }
    void put_row(uint64_t key, Place place, uint32_t handle, unsigned bits, const uint8_t* payload);
    Place acquire_cell(unsigned bits);
    void remove_row(uint64_t key, Place place);
    uint64_t stored_hash(uint64_t key, Place place);

    const size_t dim_;
    mutable std::shared_mutex mutex_;
    std::array<ChunkedRows, 4> pools_;
    KeyIndex by_key_;
    std::optional<HandleIndex> by_handle_;
    RowHash hash_;  // used by the writer only
    uint64_t digest_ = 0;
    uint64_t changes_ = 0;  // calls that may have changed the view
    size_t payload_total_ = 0;
};

}  // namespace springtide
