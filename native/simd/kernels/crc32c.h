// CRC-32C (Castagnoli), the checksum of Kafka's record batches: one instruction per eight bytes if the level has it,
// otherwise eight lookup tables. The same result at every level.
#pragma once

#include <cstddef>
#include <cstdint>

#include "simd/simd.h"

namespace springtide {

uint32_t crc32c(simd::Portable, const uint8_t* bytes, size_t n);
uint32_t crc32c(simd::Avx2, const uint8_t* bytes, size_t n);
uint32_t crc32c(simd::Avx512, const uint8_t* bytes, size_t n);

}  // namespace springtide
