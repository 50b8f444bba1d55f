// Pages: zeroed memory straight from the operating system, aligned to 2 MiB, given back when it goes.
//
// Not from malloc, so that what a table says it holds is what the process grew by: nothing lingers in free lists. Large
// blocks ask for huge pages, which spare most lookups a walk through the page table, and are touched at once: from then
// on they are really there. A small block's memory comes as it is used. Movable, owns its memory; throws std::bad_alloc.
#pragma once

#include <cstddef>
#include <utility>

namespace springtide {

class Pages {
public:
    static constexpr size_t kBytes = size_t{4} << 10;      // what memory is counted in
    static constexpr size_t kHugeBytes = size_t{2} << 20;  // what a block is a multiple of

    enum class Use { kAsTouched, kWhole };

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
