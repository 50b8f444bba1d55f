#include "memory/pages.h"

#include <sys/mman.h>

#include <cstdint>
#include <new>

namespace springtide {
namespace {

void* map(size_t bytes) {
    void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) throw std::bad_alloc();
    return at;
}

// Maps 2 MiB more than requested and unmaps the parts before and after the aligned block.
std::byte* map_aligned(size_t bytes) {
    std::byte* at = static_cast<std::byte*>(map(bytes + Pages::kHugeBytes));
    const size_t before = -reinterpret_cast<uintptr_t>(at) % Pages::kHugeBytes;
    if (before > 0) munmap(at, before);
    munmap(at + before + bytes, Pages::kHugeBytes - before);
    return at + before;
}

}  // namespace

Pages::Pages(size_t bytes, Use use) : at_(map_aligned(rounded(bytes, kHugeBytes))), bytes_(rounded(bytes, kHugeBytes)) {
    if (use == Use::kLazy) return;
#ifdef MADV_HUGEPAGE
    madvise(at_, bytes_, MADV_HUGEPAGE);  // only advice: small pages work as well
#endif
    for (size_t i = 0; i < bytes_; i += kBytes) reinterpret_cast<volatile char*>(at_)[i] = 0;
}

Pages::~Pages() {
    if (at_ != nullptr) munmap(at_, bytes_);
}

}  // namespace springtide
