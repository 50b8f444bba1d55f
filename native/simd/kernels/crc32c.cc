#include "simd/kernels/crc32c.h"

#include <cstring>

namespace springtide {
namespace {

#ifdef __SSE4_2__

uint32_t update(uint32_t crc, const uint8_t* bytes, size_t n) {
    uint64_t wide = crc;
    for (; n >= 8; n -= 8, bytes += 8) {
        uint64_t word;
        std::memcpy(&word, bytes, 8);
        wide = __builtin_ia32_crc32di(wide, word);
    }
    crc = static_cast<uint32_t>(wide);
    for (; n > 0; --n) crc = __builtin_ia32_crc32qi(crc, *bytes++);
    return crc;
}

#else

constexpr uint32_t kPolynomial = 0x82F63B78;  // reflected

struct Tables {
    uint32_t of[8][256];
};

constexpr Tables make_tables() {
    Tables tables{};
    for (uint32_t byte = 0; byte < 256; ++byte) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; ++bit) crc = crc & 1 ? crc >> 1 ^ kPolynomial : crc >> 1;
        tables.of[0][byte] = crc;
    }
    for (int i = 1; i < 8; ++i)
        for (uint32_t byte = 0; byte < 256; ++byte) {
            const uint32_t previous = tables.of[i - 1][byte];
            tables.of[i][byte] = previous >> 8 ^ tables.of[0][previous & 255];
        }
    return tables;
}

constexpr Tables kTables = make_tables();

uint32_t update(uint32_t crc, const uint8_t* bytes, size_t n) {
    for (; n >= 8; n -= 8, bytes += 8) {
        // Slicing by eight (Kounavis and Berry): the first four bytes are combined with the CRC so far.
        const uint32_t low = crc ^ (static_cast<uint32_t>(bytes[0]) | static_cast<uint32_t>(bytes[1]) << 8 |
                                    static_cast<uint32_t>(bytes[2]) << 16 | static_cast<uint32_t>(bytes[3]) << 24);
        crc = kTables.of[7][low & 255] ^ kTables.of[6][low >> 8 & 255] ^ kTables.of[5][low >> 16 & 255] ^
              kTables.of[4][low >> 24] ^ kTables.of[3][bytes[4]] ^ kTables.of[2][bytes[5]] ^ kTables.of[1][bytes[6]] ^
              kTables.of[0][bytes[7]];
    }
    for (; n > 0; --n) crc = crc >> 8 ^ kTables.of[0][(crc ^ *bytes++) & 255];
    return crc;
}

#endif

}  // namespace

uint32_t crc32c(simd::ThisLevel, const uint8_t* bytes, size_t n) { return ~update(~0U, bytes, n); }

}  // namespace springtide
