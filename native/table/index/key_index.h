// KeyIndex: key → row number, for rows that contain their keys.
//
// A line is one cache line with twelve entries, each one byte of the key's hash (tag) and a row number. The key itself
// is read from the row, which callers of a lookup read anyway. Memory: 6.3 bytes per key, 8.5 up to some 300,000 keys.
// Lines are ordered by hash: the home of a key is line hash × lines / 2^64; if it is full, the key goes to the next
// line with a free entry. Each line counts the keys that overflowed it, so a search can stop and erase() needs no
// tombstones.
//
// Growth is incremental: because of the order, keys move line by line from the front to a second array that is an
// eighth longer, just fast enough to keep the load factor constant, and the memory of emptied lines is freed. An insert
// moves a few lines at most and rarely allocates 2 MiB. The index never shrinks. Growing by an eighth moves each key
// about eight times in total, the cost of a constant load factor; a small index has a lower load factor, grows by half
// and moves each key twice.
//
// A `KeyOf` reads keys from rows: key_of(row) → uint64_t, and key_of.prefetch(row). prefetch must be always_inline: GCC
// considers a function that only prefetches free of side effects and drops calls to it.
// Threads: not thread-safe; concurrent const calls are safe. Any uint64 is a key, including 0; a missing key gives
// kNoRow. The order of entries depends on history and must not influence results.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#include "table/index/line_array.h"

namespace springtide {

inline constexpr uint32_t kNoRow = 0xffffffff;

class KeyIndex {
public:
    KeyIndex();

    template <class KeyOf>
    uint32_t find(uint64_t key, const KeyOf& key_of) const {
        return search(probe(key), [&](uint32_t row) { return key_of(row) == key; });
    }

    // Calls visit(i, find(keys[i])) for each i in order, with the memory accesses of several keys overlapped.
    template <class KeyOf, class Visit>
    void find_each(std::span<const uint64_t> keys, const KeyOf& key_of, Visit visit) const;

    // Prefetches the home line of a key.
    [[gnu::always_inline]] void prefetch(uint64_t key) const { __builtin_prefetch(probe(key).line); }

    // Adds a key that is not in the index; its row must contain the key already. If it throws std::bad_alloc, the index
    // has the keys that it had.
    template <class KeyOf>
    void insert(uint64_t key, uint32_t row, const KeyOf& key_of) {
        while (size_ >= capacity_) grow(key_of);
        const uint64_t hash = hash_of(key);
        put(arrays_[moved(hash)], hash, row);
        ++size_;
    }

    // Removes a key that is in the index; its row must still contain the key.
    void erase(uint64_t key, uint32_t row);

    // Calls visit(key, row) for every key, in no particular order.
    template <class KeyOf, class Visit>
    void for_each(const KeyOf& key_of, Visit visit) const {
        for_lines(arrays_[kNext], 0, key_of, visit);
        for_lines(arrays_[kCurrent], moved_, key_of, visit);
    }

    size_t size() const { return size_; }
    size_t memory_bytes() const { return arrays_[kCurrent].memory_bytes() + arrays_[kNext].memory_bytes(); }

private:
    static constexpr size_t kStride = 16;     // keys between the prefetch of a line and its use
    static constexpr size_t kLinesAhead = 4;  // lines between the prefetch of their rows and their use

    enum { kCurrent, kNext };

    // The start of the search for a key.
    struct Probe {
        const LineArray* lines;
        size_t at;
        const Line* line;  // lines[at]
        uint8_t tag;
    };

    // Keys are usually hashes already, but this is not guaranteed: both halves of a product depend on every bit.
    static uint64_t hash_of(uint64_t key) {
        __extension__ using Wide = unsigned __int128;
        const Wide product = static_cast<Wide>(key ^ 0x9E3779B97F4A7C15) * 0xD6E8FEB86659FD93;
        return static_cast<uint64_t>(product >> 64) ^ static_cast<uint64_t>(product);
    }

    static uint8_t tag_of(uint64_t hash) {
        const auto tag = static_cast<uint8_t>(hash);
        return tag == 0 ? 1 : tag;
    }

    static bool small(size_t homes) { return homes < (size_t{1} << 15); }

    bool moved(uint64_t hash) const { return arrays_[kCurrent].home_of(hash) < moved_; }

    // Branch-free: during growth a branch would be mispredicted half of the time.
    Probe probe(uint64_t key) const {
        const uint64_t hash = hash_of(key);
        const LineArray* const lines = &arrays_[moved(hash)];
        const size_t home = lines->home_of(hash);
        return {lines, home, &(*lines)[home], tag_of(hash)};
    }

    // The first row with the key's tag for which accept(row) is true; kNoRow if there is none.
    template <class Accept>
    static uint32_t search(const Probe& probe, Accept accept);

    template <class KeyOf>
    [[gnu::always_inline]] static void prefetch_rows(const LineArray& lines, size_t at, const KeyOf& key_of);
    template <class KeyOf, class Visit>
    static void for_lines(const LineArray& lines, size_t start, const KeyOf& key_of, Visit visit);

    static void put(LineArray& lines, uint64_t hash, uint32_t row);
    template <class KeyOf>
    void grow(const KeyOf& key_of);
    size_t last_home(size_t line) const;  // in [kNext], of a key whose home in [kCurrent] is below `line`
    void finish_move(size_t line);
    void update_capacity();

    LineArray arrays_[2];  // [kCurrent], and [kNext], which is empty unless the index is growing
    size_t moved_ = 0;     // keys whose home in [kCurrent] is below this have moved to [kNext]
    size_t size_ = 0;
    size_t capacity_ = 0;  // keys the allocated lines may hold at the load factor
};

template <class Accept>
inline uint32_t KeyIndex::search(const Probe& probe, Accept accept) {
    const Line* line = probe.line;
    for (size_t at = probe.at;;) {
        for (uint32_t entries = line->matches(probe.tag); entries != 0; entries &= entries - 1) {
            const uint32_t row = line->rows[std::countr_zero(entries)];
            if (accept(row)) return row;
        }
        if (line->overflows == 0) return kNoRow;
        line = &(*probe.lines)[++at];
    }
}

// A line is prefetched two strides ahead of its use; one stride ahead, the first row with the key's tag, almost always
// the right one, is selected and prefetched.
template <class KeyOf, class Visit>
void KeyIndex::find_each(std::span<const uint64_t> keys, const KeyOf& key_of, Visit visit) const {
    Probe probes[kStride];
    uint32_t candidates[kStride];
    const size_t n = keys.size();
    for (size_t i = 0; i < n + 2 * kStride; ++i) {
        if (i >= 2 * kStride) {
            const size_t at = i - 2 * kStride;
            const uint32_t row = candidates[i % kStride];
            visit(at, row == kNoRow || key_of(row) == keys[at] ? row : find(keys[at], key_of));
        }
        if (i >= kStride && i - kStride < n) {
            const uint32_t row = search(probes[i % kStride], [](uint32_t) { return true; });
            candidates[i % kStride] = row;
            if (row != kNoRow) key_of.prefetch(row);
        }
        if (i < n) {
            probes[i % kStride] = probe(keys[i]);
            __builtin_prefetch(probes[i % kStride].line);
        }
    }
}

template <class KeyOf>
inline void KeyIndex::prefetch_rows(const LineArray& lines, size_t at, const KeyOf& key_of) {
    if (at + kLinesAhead >= lines.size()) return;
    __builtin_prefetch(&lines[at + kLinesAhead]);
    for (unsigned entry = 0; entry < lines[at].used; ++entry) key_of.prefetch(lines[at].rows[entry]);
}

template <class KeyOf, class Visit>
void KeyIndex::for_lines(const LineArray& lines, size_t start, const KeyOf& key_of, Visit visit) {
    for (size_t at = start; at < lines.size(); ++at) {
        prefetch_rows(lines, at + kLinesAhead, key_of);
        for (unsigned entry = 0; entry < lines[at].used; ++entry)
            visit(key_of(lines[at].rows[entry]), lines[at].rows[entry]);
    }
}

// Moves the keys of one line, and of the following lines while keys overflowed: a search for an overflowed key would
// otherwise start in the wrong array. Memory is allocated first, so that no key is moved in part. The keys of n lines
// fill at most n further lines.
template <class KeyOf>
void KeyIndex::grow(const KeyOf& key_of) {
    LineArray &current = arrays_[kCurrent], &next = arrays_[kNext];
    if (next.homes() == 0)
        next = LineArray(current.homes() + current.homes() / (small(current.homes()) ? 2 : 8) + 1);
    size_t end = moved_ + 1;
    while (current[end - 1].overflows != 0) ++end;
    next.reserve(std::max(next.size(), last_home(end) + 1) + end - moved_);
    for (size_t at = moved_; at < end; ++at) {
        prefetch_rows(current, at + kLinesAhead, key_of);
        const Line& line = current[at];
        for (unsigned entry = 0; entry < line.used; ++entry)
            put(next, hash_of(key_of(line.rows[entry])), line.rows[entry]);
    }
    finish_move(end);
}

}  // namespace springtide
