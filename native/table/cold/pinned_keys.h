// PinnedKeys: a set of keys that must not be swapped out, as bits by hash: a few per cent of other keys are in it too.
//
// 128 KiB, cheap to fill with the keys of some batches. Not thread-safe; concurrent const calls are safe.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "keys/xxh64.h"

namespace springtide {

class PinnedKeys {
public:
    PinnedKeys() : words_(kBits / 64) {}

    void add(std::span<const uint64_t> keys) {
        for (const uint64_t key : keys) {
            const uint64_t bit = xxh64_word(key, 0) % kBits;
            words_[bit / 64] |= uint64_t{1} << (bit % 64);
        }
    }

    bool contains(uint64_t key) const {
        const uint64_t bit = xxh64_word(key, 0) % kBits;
        return words_[bit / 64] >> (bit % 64) & 1;
    }

private:
    static constexpr uint64_t kBits = uint64_t{1} << 20;

    std::vector<uint64_t> words_;
};

}  // namespace springtide
