#include "serving/served_view.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <mutex>
#include <stdexcept>

#include "table/optimizers/dot.h"
#include "batch/key_order.h"
#include "quantizer/quantizer.h"
#include "batch/xxh64.h"

namespace springtide {
namespace {

using Reading = std::shared_lock<std::shared_mutex>;
using Writing = std::unique_lock<std::shared_mutex>;

constexpr size_t kHeaderBytes = 12;
constexpr uint32_t kMostRows = (1u << 30) - 1;  // per precision: a place must differ from kNoRow

// 4, 8, 16, 32 → 0, 1, 2, 3 and back.
unsigned pool_of(unsigned bits) { return static_cast<unsigned>(std::countr_zero(bits)) - 2; }
unsigned bits_of(uint32_t place) { return 4u << (place & 3); }

size_t cell_bytes(unsigned bits, size_t dim) { return (kHeaderBytes + payload_bytes(bits, dim) + 3) / 4 * 4; }

void write(std::byte* cell, uint64_t key, uint32_t handle) {
    std::memcpy(cell, &key, sizeof(key));
    std::memcpy(cell + sizeof(key), &handle, sizeof(handle));
}

constexpr size_t kNear = 128;  // rows put at a time: what they look at fits the nearest cache

static_assert(HandleIndex::kNoPlace == kNoRow);

// Some rows of a batch, found by the handle they carry.
struct CarriedHandle {
    const uint32_t* handles;

    uint64_t operator()(uint32_t i) const { return handles[i]; }
    void prefetch(uint32_t) const {}
};

// The first of `rows`, ascending places in a batch, that carries the handle of another key among them; n for none.
size_t meeting_in(const uint64_t* keys, const uint32_t* handles, const std::vector<uint32_t>& rows, size_t n) {
    const auto by_handle = [handles](uint32_t a, uint32_t b) { return handles[a] >= handles[b]; };
    // Ascending handles, which is how they are given out, cannot meet.
    if (std::adjacent_find(rows.begin(), rows.end(), by_handle) == rows.end()) return n;
    KeyIndex first_with;  // handle → the first row that carries it
    for (const uint32_t i : rows) {
        const uint32_t first = first_with.find(handles[i], CarriedHandle{handles});
        if (first == kNoRow) first_with.insert(handles[i], i, CarriedHandle{handles});
        else if (keys[first] != keys[i]) return i;
    }
    return n;
}

// The rows of a batch that carry a handle, and where the payload of each begins.
std::vector<uint32_t> with_handle(const uint32_t* handles, size_t n) {
    std::vector<uint32_t> rows;
    for (size_t i = 0; i < n; ++i)
        if (handles[i] != ServedView::kNoHandle) rows.push_back(static_cast<uint32_t>(i));
    return rows;
}

std::vector<size_t> payload_starts(const uint8_t* bits, size_t n, size_t dim) {
    std::vector<size_t> starts(n);
    for (size_t i = 0, at = 0; i < n; at += payload_bytes(bits[i], dim), ++i) starts[i] = at;
    return starts;
}

}  // namespace

// Of one weight, 8 bits take the most room: four bytes of grid before the code.
EntryHash::EntryHash(size_t dim) : dim_(dim), bytes_(1 + std::max(payload_bytes(8, dim), payload_bytes(32, dim))) {}

uint64_t EntryHash::operator()(uint64_t key, unsigned bits, const uint8_t* payload) {
    const size_t bytes = payload_bytes(bits, dim_);
    bytes_[0] = static_cast<uint8_t>(bits);
    std::memcpy(bytes_.data() + 1, payload, bytes);
    return xxh64(bytes_.data(), 1 + bytes, key);
}

ServedView::ServedView(size_t dim, bool by_handle)
    : dim_(dim),
      pools_{ChunkedRows(cell_bytes(4, dim)), ChunkedRows(cell_bytes(8, dim)), ChunkedRows(cell_bytes(16, dim)),
             ChunkedRows(cell_bytes(32, dim))},
      hash_(dim) {
    if (by_handle) by_handle_.emplace();
}

std::vector<ServedView::Place> ServedView::places_of(const uint64_t* keys, size_t n) const {
    std::vector<Place> places(n);
    by_key_.find_each({keys, n}, KeyAt{*this}, [&](size_t i, Place place) { places[i] = place; });
    return places;
}

ServedView::Cell ServedView::read(const std::byte* cell) {
    Cell header;
    std::memcpy(&header.key, cell, sizeof(header.key));
    std::memcpy(&header.handle, cell + sizeof(header.key), sizeof(header.handle));
    return header;
}

const uint8_t* ServedView::payload_at(Place place) const {
    return reinterpret_cast<const uint8_t*>(cell_at(place)) + kHeaderBytes;
}

uint64_t ServedView::held_hash(uint64_t key, Place place) { return hash_(key, bits_of(place), payload_at(place)); }

size_t ServedView::conflict_in(const uint64_t* keys, const uint32_t* handles, const std::vector<Place>& places) const {
    const size_t n = places.size();
    std::vector<uint32_t> fresh;  // rows whose handle nobody has yet
    for (size_t i = 0; i < n; ++i) {
        if (handles[i] == kNoHandle) continue;
        if (places[i] != kNoRow && read(cell_at(places[i])).handle == handles[i]) continue;
        if (!is_free(handles[i])) return i;
        fresh.push_back(static_cast<uint32_t>(i));
    }
    return meeting_in(keys, handles, fresh, n);
}

// Asks for the cells of rows that are there, and by searching once more for where the others will be entered.
// Inlined by force: GCC takes a call that does nothing else for one that does nothing.
[[gnu::always_inline]] inline void ServedView::come_near(const uint64_t* keys, const Place* places, size_t n) const {
    for (size_t i = 0; i < n; ++i)
        if (places[i] != kNoRow) __builtin_prefetch(cell_at(places[i]), 1);
    if (std::find(places, places + n, kNoRow) != places + n)
        by_key_.find_each({keys, n}, KeyAt{*this}, [](size_t, Place) {});
}

size_t ServedView::put(const uint64_t* keys, const uint32_t* handles, const uint8_t* bits, const uint8_t* payload,
                       size_t n) {
    const Writing lock(mutex_);
    const auto places = places_of(keys, n);
    const size_t conflict = conflict_in(keys, handles, places);
    if (conflict < n) return conflict;
    // Where a key may come twice, its first row changes the place of the second.
    const bool once = std::adjacent_find(keys, keys + n, std::greater_equal<>()) == keys + n;
    for (size_t i = 0; i < n; ++i) {
        if (i % kNear == 0) come_near(keys + i, places.data() + i, std::min(kNear, n - i));
        put_row(keys[i], once ? places[i] : by_key_.find(keys[i], KeyAt{*this}), handles[i], bits[i], payload);
        payload += payload_bytes(bits[i], dim_);
    }
    return n;
}

void ServedView::put_row(uint64_t key, Place place, uint32_t handle, unsigned bits, const uint8_t* payload) {
    if (place != kNoRow && (bits_of(place) != bits || read(cell_at(place)).handle != handle)) {
        drop(key, place);
        place = kNoRow;
    }
    if (place == kNoRow) {
        place = take_cell(bits);
        write(pools_[place & 3][place >> 2], key, handle);
        by_key_.insert(key, place, KeyAt{*this});
        if (by_handle_ && handle != kNoHandle) by_handle_->set(handle, place);
        payload_total_ += payload_bytes(bits, dim_);
    } else {
        digest_ -= held_hash(key, place);
    }
    std::memcpy(pools_[place & 3][place >> 2] + kHeaderBytes, payload, payload_bytes(bits, dim_));
    digest_ += hash_(key, bits, payload);
}

// Keys side by side in ascending order, those put before those removed: of each group of equals what is held goes, and
// the last row put comes, if one is.
size_t ServedView::digest_after(const uint64_t* keys, const uint32_t* handles, const uint8_t* bits,
                                const uint8_t* payload, size_t n, const uint64_t* removed, size_t removals,
                                uint64_t* digest) const {
    if (const size_t conflict = meeting_in(keys, handles, with_handle(handles, n), n); conflict < n) return conflict;
    std::vector<uint64_t> all(keys, keys + n);
    all.insert(all.end(), removed, removed + removals);
    const std::vector<size_t> offsets = payload_starts(bits, n, dim_);
    const std::vector<uint32_t> order = ascending(all);
    EntryHash hash(dim_);
    const Reading lock(mutex_);
    const auto places = places_of(all.data(), all.size());
    *digest = digest_;
    for (size_t first = 0, next = 0; first < order.size(); first = next) {
        const uint64_t key = all[order[first]];
        size_t put = n;
        for (; next < order.size() && all[order[next]] == key; ++next)
            if (order[next] < n) put = order[next];
        if (const Place place = places[order[first]]; place != kNoRow)
            *digest -= hash(key, bits_of(place), payload_at(place));
        if (put < n) *digest += hash(key, bits[put], payload + offsets[put]);
    }
    return n;
}

ServedView::Place ServedView::take_cell(unsigned bits) {
    const unsigned pool = pool_of(bits);
    const uint32_t row = pools_[pool].acquire();
    if (row >= kMostRows) throw std::length_error("served view: got 2^30 rows, wanted fewer. hint: use more shards");
    return row << 2 | pool;
}

void ServedView::drop(uint64_t key, Place place) {
    const unsigned bits = bits_of(place);
    const uint32_t handle = read(cell_at(place)).handle;
    digest_ -= held_hash(key, place);
    payload_total_ -= payload_bytes(bits, dim_);
    by_key_.erase(key, place);
    if (by_handle_ && handle != kNoHandle) by_handle_->clear(handle);
    pools_[place & 3].release(place >> 2);
}

size_t ServedView::remove(const uint64_t* keys, size_t n) {
    const Writing lock(mutex_);
    const size_t before = by_key_.size();
    for (size_t i = 0; i < n; ++i)
        if (const Place place = by_key_.find(keys[i], KeyAt{*this}); place != kNoRow) drop(keys[i], place);
    return before - by_key_.size();
}

void ServedView::decode(const uint64_t* keys, size_t n, float* rows) const {
    const Reading lock(mutex_);
    const auto places = places_of(keys, n);
    for (size_t i = 0; i < n; ++i, rows += dim_) {
        if (places[i] == kNoRow) std::fill_n(rows, dim_, 0.0f);
        else decode_row(payload_at(places[i]), dim_, bits_of(places[i]), rows);
    }
}

void ServedView::compare(const uint64_t* keys, size_t n, const float* rows, size_t stride, float* moved, float* length,
                         uint8_t* bits, bool* differs) const {
    const Reading lock(mutex_);
    const auto places = places_of(keys, n);
    std::vector<float> apart(dim_);
    for (size_t i = 0; i < n; ++i, rows += stride) {
        bits[i] = places[i] == kNoRow ? 0 : static_cast<uint8_t>(bits_of(places[i]));
        if (bits[i]) decode_row(payload_at(places[i]), dim_, bits[i], apart.data());
        else std::fill_n(apart.data(), dim_, 0.0f);
        differs[i] = !std::equal(rows, rows + dim_, apart.data());
        for (size_t j = 0; j < dim_; ++j) apart[j] = rows[j] - apart[j];
        moved[i] = std::sqrt(dot(apart.data(), apart.data(), dim_));
        length[i] = std::sqrt(dot(rows, rows, dim_));
    }
}

void ServedView::hold(const uint64_t* keys, size_t n, float* rows, uint8_t* bits, uint32_t* handles) const {
    const Reading lock(mutex_);
    const auto places = places_of(keys, n);
    for (size_t i = 0; i < n; ++i, rows += dim_) {
        const bool missing = places[i] == kNoRow;
        bits[i] = missing ? 0 : static_cast<uint8_t>(bits_of(places[i]));
        handles[i] = missing ? kNoHandle : read(cell_at(places[i])).handle;
        if (missing) std::fill_n(rows, dim_, 0.0f);
        else decode_row(payload_at(places[i]), dim_, bits[i], rows);
    }
}

void ServedView::bits(const uint64_t* keys, size_t n, uint8_t* bits) const {
    const Reading lock(mutex_);
    const auto places = places_of(keys, n);
    for (size_t i = 0; i < n; ++i) bits[i] = places[i] == kNoRow ? 0 : static_cast<uint8_t>(bits_of(places[i]));
}

void ServedView::handles(const uint64_t* keys, size_t n, uint32_t* handles) const {
    const Reading lock(mutex_);
    const auto places = places_of(keys, n);
    for (size_t i = 0; i < n; ++i) handles[i] = places[i] == kNoRow ? kNoHandle : read(cell_at(places[i])).handle;
}

HandleIndex ServedView::all_handles() const {
    HandleIndex found;
    by_key_.for_each(KeyAt{*this}, [&](uint64_t, Place place) {
        const uint32_t handle = read(cell_at(place)).handle;
        if (handle != kNoHandle) found.set(handle, place);
    });
    return found;
}

void ServedView::keys_of(const uint32_t* handles, size_t n, uint64_t* keys, bool* known) const {
    const Reading lock(mutex_);
    std::optional<HandleIndex> scanned;
    if (!by_handle_) scanned = all_handles();
    const HandleIndex& found = by_handle_ ? *by_handle_ : *scanned;
    for (size_t i = 0; i < n; ++i) {
        const Place place = found[handles[i]];
        known[i] = place != kNoRow;
        keys[i] = known[i] ? read(cell_at(place)).key : 0;
    }
}

ServedView::Exported ServedView::export_rows(const uint64_t* keys, size_t n) const {
    const Reading lock(mutex_);
    const auto places = places_of(keys, n);
    Exported out{std::vector<uint32_t>(n, kNoHandle), std::vector<uint8_t>(n, 0), {}};
    size_t bytes = 0;
    for (size_t i = 0; i < n; ++i) bytes += places[i] == kNoRow ? 0 : payload_bytes(bits_of(places[i]), dim_);
    out.payload.reserve(bytes);
    for (size_t i = 0; i < n; ++i) {
        if (places[i] == kNoRow) continue;
        out.handles[i] = read(cell_at(places[i])).handle;
        out.bits[i] = static_cast<uint8_t>(bits_of(places[i]));
        const uint8_t* payload = payload_at(places[i]);
        out.payload.insert(out.payload.end(), payload, payload + payload_bytes(out.bits[i], dim_));
    }
    return out;
}

std::vector<uint64_t> ServedView::keys() const {
    const Reading lock(mutex_);
    std::vector<uint64_t> keys;
    keys.reserve(by_key_.size());
    by_key_.for_each(KeyAt{*this}, [&](uint64_t key, Place) { keys.push_back(key); });
    std::sort(keys.begin(), keys.end());
    return keys;
}

uint64_t ServedView::digest() const {
    const Reading lock(mutex_);
    return digest_;
}

size_t ServedView::size() const {
    const Reading lock(mutex_);
    return by_key_.size();
}

size_t ServedView::payload_total() const {
    const Reading lock(mutex_);
    return payload_total_;
}

size_t ServedView::memory_bytes() const {
    const Reading lock(mutex_);
    size_t bytes = by_key_.memory_bytes() + (by_handle_ ? by_handle_->memory_bytes() : 0);
    for (const ChunkedRows& pool : pools_) bytes += pool.memory_bytes();
    return bytes;
}

}  // namespace springtide
