// HugePages: an allocator for a std::vector with random access, such as a hash table.
//
// An allocation of 2 MiB or more is rounded up and aligned to 2 MiB and advised with MADV_HUGEPAGE before first use: a
// random read may then miss the cache, but not the TLB. Smaller allocations, and all allocations if the system ignores
// the advice, use ordinary pages. Stateless and thread-safe. Throws std::bad_alloc.
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
