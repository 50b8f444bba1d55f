// KeyFilter: which keys a run may have entries for. Of keys without an entry about one in a hundred passes.
//
// A split block Bloom filter (Putze, Sanders and Singler, "Cache-, hash- and space-efficient Bloom filters", 2007, as in
// Apache Parquet): blocks of 32 bytes, eight words of 32 bits, of which a key sets one bit each; about ten bits per key.
// The filter is stored beside the run: its bytes are a function of its size and the set of keys. Little-endian.
//
// Threads: concurrent may_contain() calls are safe. Failure: std::invalid_argument for a size that is no positive
// multiple of 32.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace springtide {

// Bytes of a filter for so many keys: at least one block.
size_t filter_bytes(size_t keys);

void add_keys(std::span<uint8_t> filter, std::span<const uint64_t> keys);

// passed[i] = 1 if there may be an entry for keys[i], 0 if there is none.
void may_contain(std::span<const uint8_t> filter, std::span<const uint64_t> keys, uint8_t* passed);

}  // namespace springtide
