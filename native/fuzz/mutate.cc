#include "fuzz/mutate.h"

#include <algorithm>
#include <cstring>
#include <iterator>

namespace {

// Length and count errors occur at the limits of types and around powers of two.
constexpr uint64_t kBoundaries[] = {0, 1, 2, 15, 16, 127, 128, 255, 256, 65'535, 65'536, 0x7fffffff, 0x80000000,
                                    0xffffffff, uint64_t{1} << 32, ~uint64_t{0} >> 1, ~uint64_t{0} << 63,
                                    ~uint64_t{0}, 0x7fc00000, 0x7f800000, 0x7c00, 0x7e00};

size_t below(size_t limit, std::mt19937_64& random) { return random() % std::max<size_t>(limit, 1); }

Bytes::iterator at(Bytes& bytes, size_t place) { return bytes.begin() + static_cast<std::ptrdiff_t>(place); }

void put_number(Bytes& bytes, std::mt19937_64& random) {
    const uint64_t number = random() % 2 ? kBoundaries[below(std::size(kBoundaries), random)] : random();
    const size_t width = size_t{1} << below(4, random);
    if (bytes.size() < width) return;
    std::memcpy(bytes.data() + below(bytes.size() - width + 1, random), &number, width);
}

void cut(Bytes& bytes, std::mt19937_64& random) {
    const size_t first = below(bytes.size(), random);
    const size_t count = 1 + below(std::min<size_t>(bytes.size() - first, 16), random);
    if (!bytes.empty()) bytes.erase(at(bytes, first), at(bytes, std::min(first + count, bytes.size())));
}

void put_piece(Bytes& bytes, const Bytes& source, std::mt19937_64& random) {
    if (source.empty()) return;
    const size_t first = below(source.size(), random);
    const size_t count = 1 + below(std::min<size_t>(source.size() - first, 64), random);
    const Bytes piece(source.begin() + static_cast<std::ptrdiff_t>(first),
                      source.begin() + static_cast<std::ptrdiff_t>(std::min(first + count, source.size())));
    bytes.insert(at(bytes, below(bytes.size() + 1, random)), piece.begin(), piece.end());
}

void change(Bytes& bytes, const Bytes& other, std::mt19937_64& random) {
    switch (random() % 7) {
        case 0:
            if (!bytes.empty()) bytes[below(bytes.size(), random)] ^= static_cast<uint8_t>(1u << random() % 8);
            break;
        case 1:
            if (!bytes.empty()) bytes[below(bytes.size(), random)] = static_cast<uint8_t>(random());
            break;
        case 2: put_number(bytes, random); break;
        case 3: cut(bytes, random); break;
        case 4: put_piece(bytes, Bytes(bytes), random); break;
        case 5: put_piece(bytes, other, random); break;
        case 6:
            bytes.insert(at(bytes, below(bytes.size() + 1, random)), 1 + random() % 8, static_cast<uint8_t>(random()));
    }
}

}  // namespace

Bytes mutate(Bytes from, const Bytes& other, size_t max_bytes, std::mt19937_64& random) {
    for (uint64_t left = 1 + random() % 8; left > 0; --left) change(from, other, random);
    if (from.size() > max_bytes) from.resize(max_bytes);
    return from;
}
