#include "runs/key_filter.h"

#include <cstring>
#include <stdexcept>
#include <string>

#include "keys/xxh64.h"

namespace springtide {
namespace {

constexpr size_t kWords = 8, kBlockBytes = kWords * sizeof(uint32_t);
constexpr size_t kBitsPerKey = 10;
constexpr size_t kPrefetchDistance = 16;  // keys
constexpr uint64_t kSeed = 1;
// The odd multipliers of Parquet's filter.
constexpr uint32_t kSalts[kWords] = {0x47b6137b, 0x44974d91, 0x8824ad5b, 0xa2b7289d,
                                     0x705495c7, 0x2df1424b, 0x9efc4947, 0x5c6bfb31};

size_t blocks_in(size_t bytes) {
    if (bytes == 0 || bytes % kBlockBytes != 0)
        throw std::invalid_argument("filter: got " + std::to_string(bytes) + " bytes, wanted a multiple of " +
                                    std::to_string(kBlockBytes));
    return bytes / kBlockBytes;
}

size_t block_of(uint64_t hash, size_t blocks) { return ((hash >> 32) * blocks) >> 32; }

uint32_t bit_of(uint64_t hash, size_t word) { return 1u << (static_cast<uint32_t>(hash) * kSalts[word] >> 27); }

}  // namespace

size_t filter_bytes(size_t keys) {
    const size_t blocks = (keys * kBitsPerKey + kBlockBytes * 8 - 1) / (kBlockBytes * 8);
    return (blocks == 0 ? 1 : blocks) * kBlockBytes;
}

void add_keys(std::span<uint8_t> filter, std::span<const uint64_t> keys) {
    const size_t blocks = blocks_in(filter.size());
    for (const uint64_t key : keys) {
        const uint64_t hash = xxh64_word(key, kSeed);
        uint8_t* block = filter.data() + block_of(hash, blocks) * kBlockBytes;
        for (size_t word = 0; word < kWords; ++word) {
            uint32_t bits;
            std::memcpy(&bits, block + word * sizeof(bits), sizeof(bits));
            bits |= bit_of(hash, word);
            std::memcpy(block + word * sizeof(bits), &bits, sizeof(bits));
        }
    }
}

void may_contain(std::span<const uint8_t> filter, std::span<const uint64_t> keys, uint8_t* passed) {
    const size_t blocks = blocks_in(filter.size());
    for (size_t i = 0; i < keys.size(); ++i) {
        if (i + kPrefetchDistance < keys.size()) {
            const uint64_t ahead = xxh64_word(keys[i + kPrefetchDistance], kSeed);
            __builtin_prefetch(filter.data() + block_of(ahead, blocks) * kBlockBytes);
        }
        const uint64_t hash = xxh64_word(keys[i], kSeed);
        const uint8_t* block = filter.data() + block_of(hash, blocks) * kBlockBytes;
        uint32_t missing = 0;
        for (size_t word = 0; word < kWords; ++word) {
            uint32_t bits;
            std::memcpy(&bits, block + word * sizeof(bits), sizeof(bits));
            missing |= bit_of(hash, word) & ~bits;
        }
        passed[i] = missing == 0;
    }
}

}  // namespace springtide
