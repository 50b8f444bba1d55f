// RowMarks: one bit per row number, such as "touched since the last commit".
//
// Threads: set() of different rows may run together; everything else wants to be alone. A row that was never given
// room reads as not marked. Cost: a bit per row; grows by an eighth.
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace springtide {

class RowMarks {
public:
    // Room for rows below `bound`; new ones are not marked.
    void grow(size_t bound) {
        const size_t words = (bound + 63) / 64;
        if (words <= words_.size()) return;
        if (words > words_.capacity()) words_.reserve(words + words / 8);
        words_.resize(words);
    }

    bool marked(uint32_t row) const {
        const size_t word = row / 64;
        return word < words_.size() && (words_[word] >> (row % 64) & 1);
    }

    [[gnu::always_inline]] void prefetch(uint32_t row) const { __builtin_prefetch(words_.data() + row / 64); }

    // Marks a row there is room for; returns whether it was not marked yet.
    bool set(uint32_t row) {
        const uint64_t bit = uint64_t{1} << (row % 64);
        uint64_t& word = words_[row / 64];
        if (std::atomic_ref(word).load(std::memory_order_relaxed) & bit) return false;
        return !(std::atomic_ref(word).fetch_or(bit, std::memory_order_relaxed) & bit);
    }

    // Takes a mark away; returns whether it was there.
    bool clear(uint32_t row) {
        if (!marked(row)) return false;
        words_[row / 64] &= ~(uint64_t{1} << (row % 64));
        return true;
    }

    // The first marked row from `row` on, or bound() where there is none.
    size_t next(size_t row) const {
        size_t word = row / 64;
        if (word >= words_.size()) return bound();
        uint64_t bits = words_[word] >> (row % 64) << (row % 64);
        while (bits == 0) {
            if (++word == words_.size()) return bound();
            bits = words_[word];
        }
        return word * 64 + static_cast<size_t>(std::countr_zero(bits));
    }

    size_t bound() const { return words_.size() * 64; }
    size_t memory_bytes() const { return words_.capacity() * sizeof(uint64_t); }

private:
    std::vector<uint64_t> words_;
};

}  // namespace springtide
