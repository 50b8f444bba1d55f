// The upper bound of the hardware for a store: a table of uint64 keys and rows of 16 floats that only looks up existing
// keys. Open addressing over a power of two of 16-byte slots; one probe and one aligned cache line per key, both
// prefetched. No growth, removal, state or statistics. Compiled by the benchmark, called through ctypes.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>

namespace {

constexpr size_t kDim = 16, kAhead = 16, kHugeBytes = size_t{2} << 20;

struct Slot {
    uint64_t key;  // 0 where free
    uint64_t row;
};

struct Bare {
    Slot* slots;
    float* rows;
    size_t mask;
};

template <class T>
T* zeroed(size_t bytes, bool huge) {
    const size_t rounded = (bytes + kHugeBytes - 1) / kHugeBytes * kHugeBytes;
    void* at = aligned_alloc(kHugeBytes, rounded);
#ifdef MADV_HUGEPAGE
    if (huge) madvise(at, rounded, MADV_HUGEPAGE);
#endif
    return static_cast<T*>(std::memset(at, 0, rounded));
}

size_t home(const Bare& bare, uint64_t key) {
    key = (key ^ (key >> 33)) * 0xff51afd7ed558ccd;
    return (key ^ (key >> 33)) & bare.mask;
}

uint64_t row_of(const Bare& bare, uint64_t key) {
    size_t at = home(bare, key);
    while (bare.slots[at].key != key) at = (at + 1) & bare.mask;
    return bare.slots[at].row;
}

}  // namespace

extern "C" {

void* bare_make(const uint64_t* keys, size_t n, int huge) {
    size_t slots = 16;
    while (slots * 3 < n * 4) slots *= 2;
    auto* bare = new Bare{zeroed<Slot>(slots * sizeof(Slot), huge), zeroed<float>(n * kDim * sizeof(float), huge), slots - 1};
    for (size_t i = 0; i < n; ++i) {
        size_t at = home(*bare, keys[i]);
        while (bare->slots[at].key != 0) at = (at + 1) & bare->mask;
        bare->slots[at] = {keys[i], i};
    }
    return bare;
}

// All keys must exist.
void bare_lookup(const void* table, const uint64_t* keys, size_t n, float* out) {
    const Bare& bare = *static_cast<const Bare*>(table);
    uint64_t found[kAhead];
    for (size_t i = 0; i < n + 2 * kAhead; ++i) {
        if (i < n) __builtin_prefetch(&bare.slots[home(bare, keys[i])]);
        if (i >= 2 * kAhead)
            std::memcpy(out + (i - 2 * kAhead) * kDim, bare.rows + found[i % kAhead] * kDim, kDim * sizeof(float));
        if (i >= kAhead && i - kAhead < n) {
            found[i % kAhead] = row_of(bare, keys[i - kAhead]);
            __builtin_prefetch(bare.rows + found[i % kAhead] * kDim);
        }
    }
}

}
