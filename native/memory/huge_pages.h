// HugePages: an allocator for a std::vector that is read at random, such as a hash table.
//
// From 2 MiB on memory is a multiple of 2 MiB, aligned to it, and asks for huge pages before it is touched: a table read
// at random then misses the cache, but not the page table as well. Where the advice is not taken, and below that size,
// it is ordinary memory. Stateless and thread-safe; throws std::bad_alloc.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <new>

namespace springtide {

template <typename T>
struct HugePages {
    using value_type = T;
    static constexpr size_t kHugeBytes = size_t{2} << 20;

    HugePages() = default;
    template <typename U>
    HugePages(const HugePages<U>&) {}

    T* allocate(size_t n) {
        const size_t bytes = bytes_of(n);
        if (bytes < kHugeBytes) return static_cast<T*>(::operator new(bytes));
        void* at = ::operator new(bytes, std::align_val_t{kHugeBytes});
#ifdef MADV_HUGEPAGE
        madvise(at, bytes, MADV_HUGEPAGE);
#endif
        return static_cast<T*>(at);
    }

    void deallocate(T* at, size_t n) {
        if (bytes_of(n) < kHugeBytes)
            ::operator delete(at);
        else
            ::operator delete(at, std::align_val_t{kHugeBytes});
    }

    bool operator==(const HugePages&) const = default;

private:
    static size_t bytes_of(size_t n) {
        const size_t bytes = n * sizeof(T);
        return bytes < kHugeBytes ? bytes : (bytes + kHugeBytes - 1) / kHugeBytes * kHugeBytes;
    }
};

}  // namespace springtide
