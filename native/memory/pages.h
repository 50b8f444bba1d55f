// Pages: a block of zeroed memory mapped from the operating system, aligned to 2 MiB, unmapped by the destructor.
//
// The memory does not come from malloc: released memory returns to the system at once, so the memory a table reports is
// the growth of the process. A populated block requests huge pages, which reduce TLB misses of lookups, and is touched
// at once, so it is resident from the start. Small blocks stay lazy. Movable; owns its memory; throws std::bad_alloc.
#pragma once

#include <cstddef>
#include <utility>

namespace springtide {

class Pages {
public:
    static constexpr size_t kBytes = size_t{4} << 10;      // unit of memory accounting
    static constexpr size_t kHugeBytes = size_t{2} << 20;  // block sizes are rounded up to a multiple of this

    // kLazy: pages become resident on first access. kPopulated: all of them at construction.
    enum class Use { kLazy, kPopulated };

    Pages() = default;
    Pages(size_t bytes, Use use);
    Pages(Pages&& other) noexcept : at_(std::exchange(other.at_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
    Pages& operator=(Pages&& other) noexcept {
        std::swap(at_, other.at_);
        std::swap(bytes_, other.bytes_);
        return *this;
    }
    ~Pages();

    std::byte* data() const { return at_; }

    static size_t rounded(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

private:
    std::byte* at_ = nullptr;
    size_t bytes_ = 0;
};

}  // namespace springtide
