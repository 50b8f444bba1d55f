#include "serving/served_view.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <mutex>
#include <stdexcept>

#include "keys/key_order.h"
#include "keys/xxh64.h"
#include "quantizer/quantizer.h"
#include "table/optimizers/dot.h"

namespace springtide {
namespace {

constexpr uint32_t kMaxRows = (1u << 30) - 1;  // per precision; a place must not be kNoRow

// 4, 8, 16, 32 → 0, 1, 2, 3 and back.
unsigned pool_of(unsigned bits) { return static_cast<unsigned>(std::countr_zero(bits)) - 2; }

size_t cell_bytes(unsigned bits, size_t dim, size_t header) { return (header + payload_bytes(bits, dim) + 3) / 4 * 4; }

void write(std::byte* cell, uint64_t key, uint32_t handle) {
    std::memcpy(cell, &key, sizeof(key));
    std::memcpy(cell + sizeof(key), &handle, sizeof(handle));
}

constexpr size_t kPutBlock = 128;  // rows per prefetch; their cells fit the first-level cache

static_assert(HandleIndex::kNoPlace == kNoRow);

// Reads handles of batch rows for an index of rows by handle.
struct HandleOf {
    const uint32_t* handles;

    uint64_t operator()(uint32_t i) const { return handles[i]; }
    void prefetch(uint32_t) const {}
};

// The first of `rows`, ascending positions in a batch, whose handle belongs to another key among them; n if none.
size_t handle_conflict_in(const uint64_t* keys, const uint32_t* handles, const std::vector<uint32_t>& rows, size_t n) {
    const auto by_handle = [handles](uint32_t a, uint32_t b) { return handles[a] >= handles[b]; };
    // Strictly ascending handles, the order in which handles are assigned, cannot conflict.
    if (std::adjacent_find(rows.begin(), rows.end(), by_handle) == rows.end()) return n;
    KeyIndex first_rows;  // handle → the first row with it
    for (const uint32_t i : rows) {
        const uint32_t first = first_rows.find(handles[i], HandleOf{handles});
        if (first == kNoRow) first_rows.insert(handles[i], i, HandleOf{handles});
        else if (keys[first] != keys[i]) return i;
    }
    return n;
}

// The rows of a batch that have a handle.
std::vector<uint32_t> with_handle(const uint32_t* handles, size_t n) {
    std::vector<uint32_t> rows;
    for (size_t i = 0; i < n; ++i)
        if (handles[i] != ServedView::kNoHandle) rows.push_back(static_cast<uint32_t>(i));
    return rows;
}

// Which keys may occur twice in a batch: all that do, and about one in sixteen of the others.
std::vector<bool> maybe_repeated(const std::vector<uint64_t>& keys) {
    constexpr uint64_t kGolden = 0x9e3779b97f4a7c15;
    const unsigned width = static_cast<unsigned>(std::bit_width(16 * keys.size()));
    std::vector<bool> seen(size_t{1} << width), again(seen.size()), maybe(keys.size());
    const auto slot = [width](uint64_t key) { return key * kGolden >> (64 - width); };
    for (const uint64_t key : keys) {
        if (seen[slot(key)]) again[slot(key)] = true;
        seen[slot(key)] = true;
    }
    for (size_t i = 0; i < keys.size(); ++i) maybe[i] = again[slot(keys[i])];
    return maybe;
}

std::vector<size_t> payload_starts(const uint8_t* bits, size_t n, size_t dim) {
    std::vector<size_t> starts(n);
    for (size_t i = 0, at = 0; i < n; at += payload_bytes(bits[i], dim), ++i) starts[i] = at;
    return starts;
}

}  // namespace

RowHash::RowHash(size_t dim) : dim_(dim), bytes_(1 + payload_bytes(32, dim)) {}  // no payload is larger

uint64_t RowHash::operator()(uint64_t key, unsigned bits, const uint8_t* payload) {
    const size_t bytes = payload_bytes(bits, dim_);
    bytes_[0] = static_cast<uint8_t>(bits);
    std::memcpy(bytes_.data() + 1, payload, bytes);
    return xxh64(bytes_.data(), 1 + bytes, key);
}

ServedView::ServedView(size_t dim, bool by_handle)
    : dim_(dim),
      pools_{ChunkedRows(cell_bytes(4, dim, kHeaderBytes)), ChunkedRows(cell_bytes(8, dim, kHeaderBytes)),
             ChunkedRows(cell_bytes(16, dim, kHeaderBytes)), ChunkedRows(cell_bytes(32, dim, kHeaderBytes))},
      hash_(dim) {
    if (by_handle) by_handle_.emplace();
}

std::vector<ServedView::Place> ServedView::places_of(const uint64_t* keys, size_t n) const {
    std::vector<Place> places(n);
    by_key_.find_each({keys, n}, KeyAt{*this}, [&](size_t i, Place place) { places[i] = place; });
    return places;
}

uint64_t ServedView::stored_hash(uint64_t key, Place place) { return hash_(key, bits_of(place), payload_at(place)); }

size_t ServedView::conflict_in(const uint64_t* keys, const uint32_t* handles, const std::vector<Place>& places) const {
    const size_t n = places.size();
    std::vector<uint32_t> new_handles;  // rows with a handle that no stored row has
    for (size_t i = 0; i < n; ++i) {
        prefetch_ahead(places, i);
        if (handles[i] == kNoHandle || keeps_handle(places[i], handles[i])) continue;
        if (!is_free(handles[i])) return i;
        new_handles.push_back(static_cast<uint32_t>(i));
    }
    return handle_conflict_in(keys, handles, new_handles, n);
}

// Rows that keep the handle of their key conflict with none whose handle is free.
size_t ServedView::batch_conflict_in(const uint64_t* keys, const uint32_t* handles, const std::vector<Place>& places,
                                     size_t n) const {
    std::vector<uint32_t> new_handles;
    bool all_free = by_handle_.has_value();
    for (size_t i = 0; i < n; ++i) {
        prefetch_ahead(places, i);
        if (handles[i] == kNoHandle || keeps_handle(places[i], handles[i])) continue;
        all_free = all_free && is_free(handles[i]);
        new_handles.push_back(static_cast<uint32_t>(i));
    }
    return handle_conflict_in(keys, handles, all_free ? new_handles : with_handle(handles, n), n);
}

// Prefetches the cells of stored rows and, by another search, the index lines where missing keys will be inserted.
// always_inline: GCC drops calls to a function that only prefetches.
[[gnu::always_inline]] inline void ServedView::prefetch_cells(const uint64_t* keys, const Place* places,
                                                               size_t n) const {
    for (size_t i = 0; i < n; ++i)
        if (places[i] != kNoRow) __builtin_prefetch(cell_at(places[i]), 1);
    if (std::find(places, places + n, kNoRow) != places + n)
        by_key_.find_each({keys, n}, KeyAt{*this}, [](size_t, Place) {});
}

size_t ServedView::put(const uint64_t* keys, const uint32_t* handles, const uint8_t* bits, const uint8_t* payload,
                       size_t n) {
    const WriteLock lock(mutex_);
    const auto places = places_of(keys, n);
    const size_t conflict = conflict_in(keys, handles, places);
    if (conflict < n) return conflict;
    ++changes_;
    // The first row of a repeated key may change its place, so places are reused for strictly ascending keys only.
    const bool distinct = std::adjacent_find(keys, keys + n, std::greater_equal<>()) == keys + n;
    for (size_t i = 0; i < n; ++i) {
        if (i % kPutBlock == 0) prefetch_cells(keys + i, places.data() + i, std::min(kPutBlock, n - i));
        put_row(keys[i], distinct ? places[i] : by_key_.find(keys[i], KeyAt{*this}), handles[i], bits[i], payload);
        payload += payload_bytes(bits[i], dim_);
    }
    return n;
}

void ServedView::put_row(uint64_t key, Place place, uint32_t handle, unsigned bits, const uint8_t* payload) {
    if (place != kNoRow && (bits_of(place) != bits || header_of(cell_at(place)).handle != handle)) {
        remove_row(key, place);
        place = kNoRow;
    }
    if (place == kNoRow) {
        place = acquire_cell(bits);
        write(pools_[place & 3][place >> 2], key, handle);
        by_key_.insert(key, place, KeyAt{*this});
        if (by_handle_ && handle != kNoHandle) by_handle_->set(handle, place);
        payload_total_ += payload_bytes(bits, dim_);
    } else {
        digest_ -= stored_hash(key, place);
    }
    std::memcpy(stored_payload(place), payload, payload_bytes(bits, dim_));
    digest_ += hash_(key, bits, payload);
}

// For each distinct key the hash of the stored row is subtracted and that of the last row put, if any, is added. Keys that
// may be repeated come last, in ascending order, rows put before removals.
size_t ServedView::digest_after(const uint64_t* keys, const uint32_t* handles, const uint8_t* bits,
                                const uint8_t* payload, size_t n, const uint64_t* removed, size_t removed_count,
                                uint64_t* digest) const {
    std::vector<uint64_t> all(keys, keys + n);
    all.insert(all.end(), removed, removed + removed_count);
    const std::vector<size_t> offsets = payload_starts(bits, n, dim_);
    const std::vector<bool> maybe = maybe_repeated(all);
    RowHash hash(dim_);
    const ReadLock lock(mutex_);
    const auto places = places_of(all.data(), all.size());
    const size_t conflict = batch_conflict_in(keys, handles, places, n);
    if (conflict < n) return conflict;
    *digest = digest_;
    const auto replace = [&](size_t at, size_t put) {
        if (places[at] != kNoRow) *digest -= hash(all[at], bits_of(places[at]), payload_at(places[at]));
        if (put < n) *digest += hash(all[at], bits[put], payload + offsets[put]);
    };
    std::vector<uint32_t> rest;
    std::vector<uint64_t> rest_keys;
    for (size_t i = 0; i < all.size(); ++i) {
        prefetch_ahead(places, i);
        if (!maybe[i]) replace(i, std::min(i, n));
        else rest.push_back(static_cast<uint32_t>(i)), rest_keys.push_back(all[i]);
    }
    const std::vector<uint32_t> order = ascending(rest_keys);
    for (size_t first = 0, next = 0; first < order.size(); first = next) {
        size_t put = n;
        for (; next < order.size() && rest_keys[order[next]] == rest_keys[order[first]]; ++next)
            if (rest[order[next]] < n) put = rest[order[next]];
        replace(rest[order[first]], put);
    }
    return n;
}

ServedView::Place ServedView::acquire_cell(unsigned bits) {
    const unsigned pool = pool_of(bits);
    const uint32_t row = pools_[pool].acquire();
    if (row >= kMaxRows) throw std::length_error("served view: got 2^30 rows, wanted fewer. hint: use more shards");
    return row << 2 | pool;
}

void ServedView::remove_row(uint64_t key, Place place) {
    const unsigned bits = bits_of(place);
    const uint32_t handle = header_of(cell_at(place)).handle;
    digest_ -= stored_hash(key, place);
    payload_total_ -= payload_bytes(bits, dim_);
    by_key_.erase(key, place);
    if (by_handle_ && handle != kNoHandle) by_handle_->clear(handle);
    pools_[place & 3].release(place >> 2);
}

size_t ServedView::remove(const uint64_t* keys, size_t n) {
    const WriteLock lock(mutex_);
    ++changes_;
    const size_t before = by_key_.size();
    for (size_t i = 0; i < n; ++i)
        if (const Place place = by_key_.find(keys[i], KeyAt{*this}); place != kNoRow) remove_row(keys[i], place);
    return before - by_key_.size();
}

void ServedView::decode(const uint64_t* keys, size_t n, float* rows) const {
    const ReadLock lock(mutex_);
    const auto places = places_of(keys, n);
    for (size_t i = 0; i < n; ++i, rows += dim_) {
        if (places[i] == kNoRow) std::fill_n(rows, dim_, 0.0f);
        else decode_row(payload_at(places[i]), dim_, bits_of(places[i]), rows);
    }
}

void ServedView::compare(const uint64_t* keys, size_t n, const float* rows, size_t stride, float* moved, float* length,
                         uint8_t* bits, bool* differs) const {
    const ReadLock lock(mutex_);
    const auto places = places_of(keys, n);
    std::vector<float> difference(dim_);
    for (size_t i = 0; i < n; ++i, rows += stride) {
        bits[i] = places[i] == kNoRow ? 0 : static_cast<uint8_t>(bits_of(places[i]));
        if (bits[i]) decode_row(payload_at(places[i]), dim_, bits[i], difference.data());
        else std::fill_n(difference.data(), dim_, 0.0f);
        differs[i] = !std::equal(rows, rows + dim_, difference.data());
        for (size_t j = 0; j < dim_; ++j) difference[j] = rows[j] - difference[j];
        moved[i] = std::sqrt(dot(difference.data(), difference.data(), dim_));
        length[i] = std::sqrt(dot(rows, rows, dim_));
    }
}

void ServedView::read(const uint64_t* keys, size_t n, float* rows, uint8_t* bits, uint32_t* handles) const {
    const ReadLock lock(mutex_);
    const auto places = places_of(keys, n);
    for (size_t i = 0; i < n; ++i, rows += dim_) {
        const bool missing = places[i] == kNoRow;
        bits[i] = missing ? 0 : static_cast<uint8_t>(bits_of(places[i]));
        handles[i] = missing ? kNoHandle : header_of(cell_at(places[i])).handle;
        if (missing) std::fill_n(rows, dim_, 0.0f);
        else decode_row(payload_at(places[i]), dim_, bits[i], rows);
    }
}

void ServedView::exponents(const uint64_t* keys, size_t n, int8_t* exponents) const {
    const ReadLock lock(mutex_);
    const auto places = places_of(keys, n);
    for (size_t i = 0; i < n; ++i) {
        const bool integers = places[i] != kNoRow && is_integer_precision(bits_of(places[i]));
        exponents[i] = integers ? static_cast<int8_t>(*payload_at(places[i])) : int8_t{0};
    }
}

void ServedView::differences(const uint64_t* keys, const uint8_t* bits, size_t n, uint8_t* payload,
                             bool* relative) const {
    const ReadLock lock(mutex_);
    const auto places = places_of(keys, n);
    for (size_t i = 0; i < n; payload += payload_bytes(bits[i], dim_), ++i) {
        relative[i] = places[i] != kNoRow && is_integer_precision(bits[i]) && bits_of(places[i]) == bits[i] &&
                      *payload_at(places[i]) == *payload;
        if (relative[i]) subtract_integers(payload_at(places[i]), dim_, bits[i], payload);
    }
}

void ServedView::bits(const uint64_t* keys, size_t n, uint8_t* bits) const {
    const ReadLock lock(mutex_);
    const auto places = places_of(keys, n);
    for (size_t i = 0; i < n; ++i) bits[i] = places[i] == kNoRow ? 0 : static_cast<uint8_t>(bits_of(places[i]));
}

void ServedView::handles(const uint64_t* keys, size_t n, uint32_t* handles) const {
    const ReadLock lock(mutex_);
    const auto places = places_of(keys, n);
    for (size_t i = 0; i < n; ++i) handles[i] = places[i] == kNoRow ? kNoHandle : header_of(cell_at(places[i])).handle;
}

HandleIndex ServedView::all_handles() const {
    HandleIndex handles;
    by_key_.for_each(KeyAt{*this}, [&](uint64_t, Place place) {
        const uint32_t handle = header_of(cell_at(place)).handle;
        if (handle != kNoHandle) handles.set(handle, place);
    });
    return handles;
}

void ServedView::keys_of(const uint32_t* handles, size_t n, uint64_t* keys, bool* known) const {
    const ReadLock lock(mutex_);
    std::optional<HandleIndex> scanned;
    if (!by_handle_) scanned = all_handles();
    const HandleIndex& index = by_handle_ ? *by_handle_ : *scanned;
    std::vector<Place> places(n);
    for (size_t i = 0; i < n; ++i) places[i] = index[handles[i]];
    for (size_t i = 0; i < n; ++i) {
        prefetch_ahead(places, i);
        known[i] = places[i] != kNoRow;
        keys[i] = known[i] ? header_of(cell_at(places[i])).key : 0;
    }
}

ServedView::Exported ServedView::export_rows(const uint64_t* keys, size_t n) const {
    const ReadLock lock(mutex_);
    const auto places = places_of(keys, n);
    Exported out{std::vector<uint32_t>(n, kNoHandle), std::vector<uint8_t>(n, 0), {}};
    size_t bytes = 0;
    for (size_t i = 0; i < n; ++i) bytes += places[i] == kNoRow ? 0 : payload_bytes(bits_of(places[i]), dim_);
    out.payload.reserve(bytes);
    for (size_t i = 0; i < n; ++i) {
        if (places[i] == kNoRow) continue;
        out.handles[i] = header_of(cell_at(places[i])).handle;
        out.bits[i] = static_cast<uint8_t>(bits_of(places[i]));
        const uint8_t* payload = payload_at(places[i]);
        out.payload.insert(out.payload.end(), payload, payload + payload_bytes(out.bits[i], dim_));
    }
    return out;
}

std::vector<uint64_t> ServedView::keys() const {
    const ReadLock lock(mutex_);
    std::vector<uint64_t> keys;
    keys.reserve(by_key_.size());
    by_key_.for_each(KeyAt{*this}, [&](uint64_t key, Place) { keys.push_back(key); });
    std::sort(keys.begin(), keys.end());
    return keys;
}

uint64_t ServedView::digest() const {
    const ReadLock lock(mutex_);
    return digest_;
}

size_t ServedView::size() const {
    const ReadLock lock(mutex_);
    return by_key_.size();
}

size_t ServedView::payload_total() const {
    const ReadLock lock(mutex_);
    return payload_total_;
}

size_t ServedView::memory_bytes() const {
    const ReadLock lock(mutex_);
    size_t bytes = by_key_.memory_bytes() + (by_handle_ ? by_handle_->memory_bytes() : 0);
    for (const ChunkedRows& pool : pools_) bytes += pool.memory_bytes();
    return bytes;
}

}  // namespace springtide
