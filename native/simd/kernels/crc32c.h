// CRC-32C (Castagnoli) of a stretch of bytes, as Kafka's record batches carry it: one instruction for eight bytes where
// the machine has it, else eight tables. The same number at every level.
#pragma once

#include <cstddef>
#include <cstdint>

#include "simd/simd.h"

namespace springtide {

uint32_t crc32c(simd::Portable, const uint8_t* bytes, size_t n);
uint32_t crc32c(simd::Avx2, const uint8_t* bytes, size_t n);
uint32_t crc32c(simd::Avx512, const uint8_t* bytes, size_t n);

}  // namespace springtide
