#include "table/index/key_index.h"

#include <algorithm>
#include <utility>

namespace springtide {

KeyIndex::KeyIndex() : arrays_{LineArray(1), LineArray()} {
    arrays_[kCurrent].ensure(0);
    update_capacity();
}

void KeyIndex::put(LineArray& lines, uint64_t hash, uint32_t row) {
    const size_t home = lines.home_of(hash);
    size_t at = home;
    for (lines.ensure(at); lines[at].used == Line::kEntries;) lines.ensure(++at);
    for (size_t full = home; full < at; ++full) lines[full].count_overflow();
    lines[at].add(tag_of(hash), row);
}

void KeyIndex::erase(uint64_t key, uint32_t row) {
    const uint64_t hash = hash_of(key);
    LineArray& lines = arrays_[moved(hash)];
    for (size_t at = lines.home_of(hash);; ++at) {
        Line& line = lines[at];
        const auto entry = static_cast<unsigned>(std::find(line.rows, line.rows + line.used, row) - line.rows);
        if (entry < line.used) {
            line.remove(entry);
            --size_;
            return;
        }
        line.uncount_overflow();
    }
}

size_t KeyIndex::last_home(size_t line) const {
    const LineArray &current = arrays_[kCurrent], &next = arrays_[kNext];
    return line < current.homes() ? std::min(line * next.homes() / current.homes(), next.homes() - 1)
                                  : next.homes() - 1;
}

void KeyIndex::finish_move(size_t line) {
    LineArray &current = arrays_[kCurrent], &next = arrays_[kNext];
    // A search needs the home line of every moved key to exist, even if it is empty.
    next.ensure(last_home(line));
    moved_ = line;
    current.release_below(line);
    if (line >= current.homes()) {
        current = std::exchange(next, LineArray());
        moved_ = 0;
    }
    update_capacity();
}

// 27 of 32 entries may be used, in a small index 20: the lines that move last exceed this by the growth factor.
void KeyIndex::update_capacity() {
    const LineArray &current = arrays_[kCurrent], &next = arrays_[kNext];
    const size_t lines = current.homes() - moved_ + moved_ * next.homes() / current.homes();
    capacity_ = lines * Line::kEntries * (small(current.homes()) ? 20 : 27) / 32;
}

}  // namespace springtide
