// KeyIndex: key → row number, for rows that know their own keys.
//
// A line is one cache line of twelve places, each a byte of the key's hash and a row number; the key itself is read from
// the row, which whoever asks wants to read anyway. That takes 6.6 bytes a key at any size. Lines are in the order of the
// hash: a key's home is the line at hash × lines / 2^64, and where that is full it goes to the next line with a free
// place. Each line counts the keys that went past it, so a search knows where to end and erasing leaves nothing behind.
//
// Growing: the order makes it a stretch. A second array, an eighth longer, takes over line by line from the front, just
// fast enough that the share of taken places stays the same; the old array's memory goes back as it empties. No insert
// does more than a few lines of it, and rarely asks for 2 MiB of new memory. It never shrinks.
//
// A `KeyOf` reads keys from rows: key_of(row) → uint64_t, and key_of.prefetch(row).
// Threads: not thread-safe; questions may run in parallel with each other. Any uint64 is a key, 0 included; a missing one
// gives kNoRow. The order of places depends on history: never let it show.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#include "line_array.h"

namespace freshet {

inline constexpr uint32_t kNoRow = 0xffffffff;

class KeyIndex {
public:
    KeyIndex() : lines_(1) { lines_.ensure(0); }

    template <class KeyOf>
    uint32_t find(uint64_t key, const KeyOf& key_of) const {
        const uint64_t hash = hash_of(key);
        return search(hash, [&](uint32_t row) { return key_of(row) == key; });
    }

    // visit(i, find(keys[i])) for each i in turn, the memory accesses of neighbours overlapped.
    template <class KeyOf, class Visit>
    void find_each(std::span<const uint64_t> keys, const KeyOf& key_of, Visit visit) const;

    // Adds a key that is not there yet, and whose row knows it.
    template <class KeyOf>
    void insert(uint64_t key, uint32_t row, const KeyOf& key_of) {
        while (crowded()) stretch(key_of);
        put(hash_of(key), row);
        ++size_;
    }

    // Takes out a key that is there, and whose row still knows it.
    void erase(uint64_t key, uint32_t row);

    // visit(key, row) for every key, in no meaningful order.
    template <class KeyOf, class Visit>
    void for_each(const KeyOf& key_of, Visit visit) const {
        for_lines(next_, 0, key_of, visit);
        for_lines(lines_, moved_, key_of, visit);
    }

    size_t size() const { return size_; }
    size_t memory_bytes() const { return lines_.memory_bytes() + next_.memory_bytes(); }

private:
    static constexpr size_t kStride = 16;    // keys between asking for memory and reading it
    static constexpr size_t kLinesAhead = 3;  // the same for whole lines of rows

    struct Home {
        const LineArray* lines;
        size_t line;
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

    Home home_of(uint64_t hash) const {
        const size_t line = lines_.home_of(hash);
        return line < moved_ ? Home{&next_, next_.home_of(hash)} : Home{&lines_, line};
    }

    // The first row with the hash's tag that `accept` takes, kNoRow where there is none.
    template <class Accept>
    uint32_t search(uint64_t hash, Accept accept) const;

    template <class KeyOf>
    static void prefetch_rows(const LineArray& lines, size_t line, const KeyOf& key_of);
    template <class KeyOf, class Visit>
    static void for_lines(const LineArray& lines, size_t start, const KeyOf& key_of, Visit visit);

    bool crowded() const;
    void put(uint64_t hash, uint32_t row);
    static void put_in(LineArray& lines, uint64_t hash, uint32_t row);
    template <class KeyOf>
    void stretch(const KeyOf& key_of);
    void leave(size_t line);

    LineArray lines_;
    LineArray next_;    // without homes unless the index is being stretched
    size_t moved_ = 0;  // keys at home in lines_ below this have moved to next_
    size_t size_ = 0;
};

template <class Accept>
uint32_t KeyIndex::search(uint64_t hash, Accept accept) const {
    const Home home = home_of(hash);
    for (size_t at = home.line;; ++at) {
        const Line& line = (*home.lines)[at];
        for (uint32_t places = line.places_of(tag_of(hash)); places != 0; places &= places - 1) {
            const uint32_t row = line.rows[std::countr_zero(places)];
            if (accept(row)) return row;
        }
        if (line.passed == 0) return kNoRow;
    }
}

// Lines are asked for two strides ahead; one stride ahead the first row with the key's tag, which is nearly always its
// own, is chosen and asked for.
template <class KeyOf, class Visit>
void KeyIndex::find_each(std::span<const uint64_t> keys, const KeyOf& key_of, Visit visit) const {
    uint32_t chosen[kStride];
    const size_t n = keys.size();
    for (size_t i = 0; i < n + 2 * kStride; ++i) {
        if (i < n) {
            const Home home = home_of(hash_of(keys[i]));
            __builtin_prefetch(&(*home.lines)[home.line]);
        }
        if (i >= 2 * kStride) {
            const size_t at = i - 2 * kStride;
            const uint32_t row = chosen[i % kStride];
            visit(at, row == kNoRow || key_of(row) == keys[at] ? row : find(keys[at], key_of));
        }
        if (i >= kStride && i - kStride < n) {
            const uint32_t row = search(hash_of(keys[i - kStride]), [](uint32_t) { return true; });
            chosen[i % kStride] = row;
            if (row != kNoRow) key_of.prefetch(row);
        }
    }
}

template <class KeyOf>
void KeyIndex::prefetch_rows(const LineArray& lines, size_t line, const KeyOf& key_of) {
    if (line >= lines.size()) return;
    for (unsigned place = 0; place < lines[line].used; ++place) key_of.prefetch(lines[line].rows[place]);
}

template <class KeyOf, class Visit>
void KeyIndex::for_lines(const LineArray& lines, size_t start, const KeyOf& key_of, Visit visit) {
    for (size_t at = start; at < lines.size(); ++at) {
        prefetch_rows(lines, at + kLinesAhead, key_of);
        for (unsigned place = 0; place < lines[at].used; ++place)
            visit(key_of(lines[at].rows[place]), lines[at].rows[place]);
    }
}

// Moves the keys of a line; and goes on while keys went past it, or those would be looked for where they are not.
template <class KeyOf>
void KeyIndex::stretch(const KeyOf& key_of) {
    if (next_.homes() == 0) next_ = LineArray(lines_.homes() + lines_.homes() / 8 + 1);
    size_t at = moved_;
    for (bool passed = true; passed; ++at) {
        prefetch_rows(lines_, at + kLinesAhead, key_of);
        const Line& line = lines_[at];
        for (unsigned place = 0; place < line.used; ++place)
            put_in(next_, hash_of(key_of(line.rows[place])), line.rows[place]);
        passed = line.passed != 0;
    }
    leave(at);
}

}  // namespace freshet
