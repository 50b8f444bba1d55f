#include "table/index/line_array.h"

namespace springtide {

void LineArray::reserve(size_t line) {
    while (line >= chunks_.size() * kChunkLines) {
        // Most indexes are small, so the pages of the first chunk are lazy.
        const bool first = chunks_.empty() && homes_ < kChunkLines;
        starts_.resize(chunks_.size() + 1);  // first, so that a failure leaves no chunk without its start
        chunks_.emplace_back(Pages::kHugeBytes, first ? Pages::Use::kLazy : Pages::Use::kPopulated);
        starts_.back() = reinterpret_cast<Line*>(chunks_.back().data());
    }
}

void LineArray::release_below(size_t line) {
    for (; released_ < line / kChunkLines && released_ < chunks_.size(); ++released_) {
        chunks_[released_] = Pages();
        starts_[released_] = nullptr;
    }
}

size_t LineArray::memory_bytes() const {
    const size_t lists = chunks_.capacity() * sizeof(Pages) + starts_.capacity() * sizeof(Line*);
    if (homes_ < kChunkLines && chunks_.size() <= 1) return lists + Pages::rounded(size_ * sizeof(Line), Pages::kBytes);
    return lists + (chunks_.size() - released_) * Pages::kHugeBytes;
}

}  // namespace springtide
