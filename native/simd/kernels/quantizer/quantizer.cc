#include "simd/kernels/quantizer/quantizer.h"

#include "simd/kernels/quantizer/grid_search.h"

namespace springtide {
namespace {

// Beyond the range of any grid of halves, and small enough that no sum of squares overflows.
constexpr float kMaxWeight = 0x1p25f;

void transpose(const float* const* rows, size_t dim, float* columns) {
    for (size_t r = 0; r < kLanes; ++r)
        for (size_t i = 0; i < dim; ++i) columns[i * kLanes + r] = rows[r][i];
    for (size_t i = 0; i < dim; ++i) {
        const Floats weights = load<Floats>(columns + i * kLanes);
        store(columns + i * kLanes, max_of(min_of(weights, floats(kMaxWeight)), floats(-kMaxWeight)));
    }
}

template <unsigned bits>
void fit(const float* columns, size_t dim, uint32_t* grids) {
    const Columns rows = {columns, dim};
    // At eight bits a search would gain little, and the covering grid bounds every error by half a scale.
    if constexpr (bits == 8) store(grids, covering<bits>(min_max(rows)).word);
    else store(grids, best_grid<bits>(rows));
}

// Codes are packed into a 32-bit word per row, first code lowest, which is the byte order of the payload.
template <unsigned bits>
void write(const float* columns, size_t dim, const uint32_t* grids, uint8_t* const* codes) {
    constexpr size_t kPerWord = 32 / bits;
    const Columns rows = {columns, dim};
    const Grid grid(load<Ints>(grids));
    for (size_t first = 0, at = 0; first < dim; first += kPerWord, at += 4) {
        const size_t count = dim - first < kPerWord ? dim - first : kPerWord;
        Ints word = {};
        for (size_t i = 0; i < count; ++i) word |= grid.codes<bits>(rows.at(first + i)) << static_cast<int>(i * bits);
        uint32_t words[kLanes];
        store(words, word);
        const size_t bytes = (count * bits + 7) / 8;
        if (bytes == 4) for (size_t r = 0; r < kLanes; ++r) std::memcpy(codes[r] + at, words + r, 4);
        else for (size_t r = 0; r < kLanes; ++r) std::memcpy(codes[r] + at, words + r, bytes);
    }
}

template <unsigned bits>
void choose(const float* columns, size_t dim, const uint32_t* grids, size_t count, uint32_t* chosen) {
    const Columns rows = {columns, dim};
    Ints best = {};
    Floats least_error = error_on<bits>(Grid(ints(static_cast<int32_t>(grids[0]))), rows);
    for (size_t i = 1; i < count; ++i) {
        const Floats error = error_on<bits>(Grid(ints(static_cast<int32_t>(grids[i]))), rows);
        best = error < least_error ? ints(static_cast<int32_t>(i)) : best;
        least_error = min_of(error, least_error);
    }
    store(chosen, best);
}

// Expands eight codes packed in the low bits to eight bytes, by moving halves apart three times.
template <unsigned bits>
uint64_t expand(uint64_t packed) {
    if constexpr (bits == 4) {
        packed = (packed | packed << 16) & 0x0000FFFF0000FFFF;
        packed = (packed | packed << 8) & 0x00FF00FF00FF00FF;
        return (packed | packed << 4) & 0x0F0F0F0F0F0F0F0F;
    } else {
        packed = (packed | packed << 24) & 0x000000FF000000FF;
        packed = (packed | packed << 12) & 0x000F000F000F000F;
        return (packed | packed << 6) & 0x0303030303030303;
    }
}

// The next kLanes codes, one byte each.
template <unsigned bits>
Bytes unpack(const uint8_t* packed) {
    using Eights = uint64_t __attribute__((vector_size(kLanes < 8 ? 8 : kLanes)));
    constexpr size_t kBytes = (kLanes < 8 ? kLanes : 8) * bits / 8;
    if constexpr (bits == 8) return load<Bytes>(packed);
    Eights codes;
    for (size_t i = 0; i < sizeof(Eights) / 8; ++i, packed += kBytes) {
        uint64_t eight = 0;
        std::memcpy(&eight, packed, kBytes);
        codes[i] = expand<bits>(eight);
    }
    return load<Bytes>(&codes);
}

template <unsigned bits>
void read(const uint8_t* codes, size_t dim, uint32_t grid, float* row) {
    const float scale = from_half(static_cast<int32_t>(grid & 0xFFFF));
    const float offset = from_half(static_cast<int32_t>(grid >> 16));
    const auto values = [=](const uint8_t* packed) {
        return offset + scale * to_floats(__builtin_convertvector(unpack<bits>(packed), Ints));
    };
    size_t i = 0;
    for (; i + kLanes <= dim; i += kLanes) store(row + i, values(codes + i * bits / 8));
    if (i == dim) return;
    uint8_t tail[kLanes] = {};
    std::memcpy(tail, codes + i * bits / 8, ((dim - i) * bits + 7) / 8);
    const Floats last = values(tail);
    std::memcpy(row + i, &last, (dim - i) * sizeof(float));
}

template <unsigned bits>
void read_all(const uint8_t* payloads, size_t n, size_t dim, float* rows) {
    const size_t stride = sizeof(uint32_t) + (dim * bits + 7) / 8;
    for (size_t i = 0; i < n; ++i, payloads += stride, rows += dim) {
        uint32_t grid;
        std::memcpy(&grid, payloads, sizeof(grid));
        read<bits>(payloads + sizeof(grid), dim, grid, rows);
    }
}

template <unsigned bits>
constexpr CodeKernels kCodes = {fit<bits>, write<bits>, choose<bits>, read<bits>, read_all<bits>};

// Converts to two bytes per value, a register at a time; the tail goes through a zero-padded register.
template <class Convert>
void narrow(const float* values, size_t n, uint8_t* out, Convert convert) {
    const auto one = [&](const float* from) { return __builtin_convertvector(convert(load<Floats>(from)), Halfwords); };
    size_t i = 0;
    for (; i + kLanes <= n; i += kLanes) store(out + 2 * i, one(values + i));
    if (i == n) return;
    float tail[kLanes] = {};
    std::memcpy(tail, values + i, (n - i) * sizeof(float));
    const Halfwords last = one(tail);
    std::memcpy(out + 2 * i, &last, 2 * (n - i));
}

template <class Convert>
void widen(const uint8_t* in, size_t n, float* values, Convert convert) {
    const auto one = [&](const void* from) { return convert(__builtin_convertvector(load<Halfwords>(from), Ints)); };
    size_t i = 0;
    for (; i + kLanes <= n; i += kLanes) store(values + i, one(in + 2 * i));
    if (i == n) return;
    uint16_t tail[kLanes] = {};
    std::memcpy(tail, in + 2 * i, 2 * (n - i));
    const Floats last = one(tail);
    std::memcpy(values + i, &last, (n - i) * sizeof(float));
}

// A bfloat is the upper half of a float. Nearest, ties to even; saturates instead of rounding to infinity.
Ints to_bfloat(Floats value) {
    const Ints bits = as_ints(value), magnitude = bits & 0x7FFFFFFF, sign = (bits >> 16) & 0x8000;
    const Ints rounded = (magnitude + 0x7FFF + ((magnitude >> 16) & 1)) >> 16;
    return sign | (magnitude >= 0x7F7F8000 ? ints(0x7F7F) : rounded);
}

void to_halves(const float* values, size_t n, uint8_t* out) { narrow(values, n, out, to_half); }
void from_halves(const uint8_t* in, size_t n, float* values) { widen(in, n, values, from_half<Ints>); }
void to_bfloats(const float* values, size_t n, uint8_t* out) { narrow(values, n, out, to_bfloat); }
void from_bfloats(const uint8_t* in, size_t n, float* values) {
    widen(in, n, values, [](Ints bfloat) { return as_floats(bfloat << 16); });
}

constexpr QuantizerKernels kKernels = {kLanes,    transpose,   kCodes<2>,  kCodes<4>,   kCodes<8>,
                                       to_halves, from_halves, to_bfloats, from_bfloats};

}  // namespace

const QuantizerKernels& quantizer_kernels(simd::ThisLevel) { return kKernels; }

}  // namespace springtide
