#include "table/key_index.h"

#include <algorithm>
#include <utility>

namespace springtide {

KeyIndex::KeyIndex() : arrays_{LineArray(1), LineArray()} {
    arrays_[kNow].ensure(0);
    count_room();
}

void KeyIndex::put(LineArray& lines, uint64_t hash, uint32_t row) {
    size_t at = lines.home_of(hash);
    for (lines.ensure(at); lines[at].used == Line::kPlaces; lines.ensure(++at)) lines[at].pass();
    lines[at].add(tag_of(hash), row);
}

void KeyIndex::erase(uint64_t key, uint32_t row) {
    const uint64_t hash = hash_of(key);
    LineArray& lines = arrays_[moved(hash)];
    for (size_t at = lines.home_of(hash);; ++at) {
        Line& line = lines[at];
        const auto place = static_cast<unsigned>(std::find(line.rows, line.rows + line.used, row) - line.rows);
        if (place < line.used) {
            line.remove(place);
            --size_;
            return;
        }
        line.unpass();
    }
}

void KeyIndex::leave(size_t line) {
    LineArray &now = arrays_[kNow], &next = arrays_[kNext];
    // Every home of a key that moved has to be there, even if no key came to it.
    next.ensure(line < now.homes() ? std::min(line * next.homes() / now.homes(), next.homes() - 1) : next.homes() - 1);
    moved_ = line;
    now.release_below(line);
    if (line >= now.homes()) {
        now = std::exchange(next, LineArray());
        moved_ = 0;
    }
    count_room();
}

// 27 of 32 places may be taken, in a small index 20: the last lines to be moved are fuller than that by the stretch.
void KeyIndex::count_room() {
    const LineArray &now = arrays_[kNow], &next = arrays_[kNext];
    const size_t lines = now.homes() - moved_ + moved_ * next.homes() / now.homes();
    room_ = lines * Line::kPlaces * (small(now.homes()) ? 20 : 27) / 32;
}

}  // namespace springtide
