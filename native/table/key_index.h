// KeyIndex: key → row number, for rows that know their own keys.
//
// A line is one cache line of twelve places, each a byte of the key's hash and a row number; the key itself is read from
// the row, which whoever asks wants to read anyway. That takes 6.3 bytes a key, 8.5 up to some 300,000 keys. Lines are
// in the order of the hash: a key's home is the line at hash × lines / 2^64, and where that is full it goes to the next
// line with a free place. Each line counts the keys that went past it, so a search knows where to end and erasing leaves
// nothing behind.
//
// Growing: the order makes it a stretch. A second array, an eighth longer, takes over line by line from the front, just
// fast enough that the share of taken places stays the same; the old array's memory goes back as it empties. No insert
// does more than a few lines of it, and rarely asks for 2 MiB of new memory. It never shrinks. An eighth moves each key
// about eight times as the index grows, the price of a constant share; a small index, where a few bytes a key are little,
// leaves more places free, grows by half and moves each key twice.
//
// A `KeyOf` reads keys from rows: key_of(row) → uint64_t, and key_of.prefetch(row), which has to be always_inline: GCC
// takes a function that does nothing but prefetch for one that does nothing, and drops calls of it.
// Threads: not thread-safe; questions may run in parallel with each other. Any uint64 is a key, 0 included; a missing one
// gives kNoRow. The order of places depends on history: never let it show.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#include "table/line_array.h"

namespace springtide {

inline constexpr uint32_t kNoRow = 0xffffffff;

class KeyIndex {
public:
    KeyIndex();

    template <class KeyOf>
    uint32_t find(uint64_t key, const KeyOf& key_of) const {
        return search(probe(key), [&](uint32_t row) { return key_of(row) == key; });
    }

    // visit(i, find(keys[i])) for each i in turn, the memory accesses of neighbours overlapped.
    template <class KeyOf, class Visit>
    void find_each(std::span<const uint64_t> keys, const KeyOf& key_of, Visit visit) const;

    // Asks for the memory that inserting or finding the key begins with.
    [[gnu::always_inline]] void prefetch(uint64_t key) const { __builtin_prefetch(probe(key).line); }

    // Adds a key that is not there yet, and whose row knows it.
    template <class KeyOf>
    void insert(uint64_t key, uint32_t row, const KeyOf& key_of) {
        while (size_ >= room_) stretch(key_of);
        const uint64_t hash = hash_of(key);
        put(arrays_[moved(hash)], hash, row);
        ++size_;
    }

    // Takes out a key that is there, and whose row still knows it.
    void erase(uint64_t key, uint32_t row);

    // visit(key, row) for every key, in no meaningful order.
    template <class KeyOf, class Visit>
    void for_each(const KeyOf& key_of, Visit visit) const {
        for_lines(arrays_[kNext], 0, key_of, visit);
        for_lines(arrays_[kNow], moved_, key_of, visit);
    }

    size_t size() const { return size_; }
    size_t memory_bytes() const { return arrays_[kNow].memory_bytes() + arrays_[kNext].memory_bytes(); }

private:
    static constexpr size_t kStride = 16;  // keys between asking for memory and reading it
    static constexpr size_t kAhead = 4;    // the same for whole lines of rows

    enum { kNow, kNext };

    // Where the search for a key begins.
    struct Probe {
        const LineArray* lines;
        size_t at;
        const Line* line;  // lines[at]
        uint8_t tag;
    };

    // Keys are usually hashes already, but nobody promised: both halves of a product depend on every bit.
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

    bool moved(uint64_t hash) const { return arrays_[kNow].home_of(hash) < moved_; }

    // Without a branch: in the middle of a stretch it would be guessed wrong every other time.
    Probe probe(uint64_t key) const {
        const uint64_t hash = hash_of(key);
        const LineArray* const lines = &arrays_[moved(hash)];
        const size_t home = lines->home_of(hash);
        return {lines, home, &(*lines)[home], tag_of(hash)};
    }

    // The first row with the key's tag that `accept` takes, kNoRow where there is none.
    template <class Accept>
    static uint32_t search(const Probe& probe, Accept accept);

    template <class KeyOf>
    [[gnu::always_inline]] static void prefetch_rows(const LineArray& lines, size_t at, const KeyOf& key_of);
    template <class KeyOf, class Visit>
    static void for_lines(const LineArray& lines, size_t start, const KeyOf& key_of, Visit visit);

    static void put(LineArray& lines, uint64_t hash, uint32_t row);
    template <class KeyOf>
    void stretch(const KeyOf& key_of);
    void leave(size_t line);
    void count_room();

    LineArray arrays_[2];  // [kNow], and [kNext], which has no homes unless the index is being stretched
    size_t moved_ = 0;     // keys at home in [kNow] below this have moved to [kNext]
    size_t size_ = 0;
    size_t room_ = 0;      // keys the lines in use are good for
};

template <class Accept>
inline uint32_t KeyIndex::search(const Probe& probe, Accept accept) {
    const Line* line = probe.line;
    for (size_t at = probe.at;;) {
        for (uint32_t places = line->places_of(probe.tag); places != 0; places &= places - 1) {
            const uint32_t row = line->rows[std::countr_zero(places)];
            if (accept(row)) return row;
        }
        if (line->passed == 0) return kNoRow;
        line = &(*probe.lines)[++at];
    }
}

// Lines are asked for two strides ahead; one stride ahead the first row with the key's tag, which is nearly always its
// own, is chosen and asked for.
template <class KeyOf, class Visit>
void KeyIndex::find_each(std::span<const uint64_t> keys, const KeyOf& key_of, Visit visit) const {
    Probe probes[kStride];
    uint32_t chosen[kStride];
    const size_t n = keys.size();
    for (size_t i = 0; i < n + 2 * kStride; ++i) {
        if (i >= 2 * kStride) {
            const size_t at = i - 2 * kStride;
            const uint32_t row = chosen[i % kStride];
            visit(at, row == kNoRow || key_of(row) == keys[at] ? row : find(keys[at], key_of));
        }
        if (i >= kStride && i - kStride < n) {
            const uint32_t row = search(probes[i % kStride], [](uint32_t) { return true; });
            chosen[i % kStride] = row;
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
    if (at + kAhead >= lines.size()) return;
    __builtin_prefetch(&lines[at + kAhead]);
    for (unsigned place = 0; place < lines[at].used; ++place) key_of.prefetch(lines[at].rows[place]);
}

template <class KeyOf, class Visit>
void KeyIndex::for_lines(const LineArray& lines, size_t start, const KeyOf& key_of, Visit visit) {
    for (size_t at = start; at < lines.size(); ++at) {
        prefetch_rows(lines, at + kAhead, key_of);
        for (unsigned place = 0; place < lines[at].used; ++place)
            visit(key_of(lines[at].rows[place]), lines[at].rows[place]);
    }
}

// Moves the keys of a line; and goes on while keys went past it, or those would be looked for where they are not.
template <class KeyOf>
void KeyIndex::stretch(const KeyOf& key_of) {
    LineArray &now = arrays_[kNow], &next = arrays_[kNext];
    if (next.homes() == 0) next = LineArray(now.homes() + now.homes() / (small(now.homes()) ? 2 : 8) + 1);
    size_t at = moved_;
    for (bool passed = true; passed; ++at) {
        prefetch_rows(now, at + kAhead, key_of);
        const Line& line = now[at];
        for (unsigned place = 0; place < line.used; ++place) put(next, hash_of(key_of(line.rows[place])), line.rows[place]);
        passed = line.passed != 0;
    }
    leave(at);
}

}  // namespace springtide
