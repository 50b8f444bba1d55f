// RowFlags: one bit per row number, such as "touched since the last commit".
//
// Threads: concurrent set() calls for different rows are safe; any other call requires exclusive access. A row beyond
// the allocated range reads as not set. Cost: one bit per row; the capacity grows by an eighth.
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace springtide {

class RowFlags {
public:
    // Allocates flags for rows below `bound`; new flags are not set.
    void grow(size_t bound) {
        const size_t words = (bound + 63) / 64;
        if (words <= words_.size()) return;
        if (words > words_.capacity()) words_.reserve(words + words / 8);
        words_.resize(words);
    }

    bool is_set(uint32_t row) const {
        const size_t word = row / 64;
        return word < words_.size() && (words_[word] >> (row % 64) & 1);
    }

    [[gnu::always_inline]] void prefetch(uint32_t row) const { __builtin_prefetch(words_.data() + row / 64); }

    // Sets the flag of an allocated row; returns whether it was not set before.
    bool set(uint32_t row) {
        const uint64_t bit = uint64_t{1} << (row % 64);
        uint64_t& word = words_[row / 64];
        if (std::atomic_ref(word).load(std::memory_order_relaxed) & bit) return false;
        return !(std::atomic_ref(word).fetch_or(bit, std::memory_order_relaxed) & bit);
    }

    // Clears a flag; returns whether it was set.
    bool clear(uint32_t row) {
        if (!is_set(row)) return false;
        words_[row / 64] &= ~(uint64_t{1} << (row % 64));
        return true;
    }

    // The first flagged row at or after `row`; bound() if there is none.
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
