#include "key_index.h"

#include <algorithm>
#include <utility>

namespace freshet {

// Whether one more key makes it more than 27 of 32 places taken, of the lines that are in use.
bool KeyIndex::crowded() const {
    size_t lines = lines_.homes() - moved_;
    if (moved_ > 0) lines += moved_ * next_.homes() / lines_.homes();
    return (size_ + 1) * 32 > lines * Line::kPlaces * 27;
}

void KeyIndex::put(uint64_t hash, uint32_t row) {
    const size_t line = lines_.home_of(hash);
    put_in(line < moved_ ? next_ : lines_, hash, row);
}

void KeyIndex::put_in(LineArray& lines, uint64_t hash, uint32_t row) {
    size_t at = lines.home_of(hash);
    for (lines.ensure(at); lines[at].used == Line::kPlaces; lines.ensure(++at)) lines[at].pass();
    lines[at].add(tag_of(hash), row);
}

void KeyIndex::erase(uint64_t key, uint32_t row) {
    const uint64_t hash = hash_of(key);
    LineArray& lines = lines_.home_of(hash) < moved_ ? next_ : lines_;
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
    // Every home of a key that moved has to be there, even if no key came to it.
    const size_t homes = line < lines_.homes() ? line * next_.homes() / lines_.homes() + 1 : next_.homes();
    next_.ensure(std::min(homes, next_.homes()) - 1);
    moved_ = line;
    lines_.release_below(line);
    if (line < lines_.homes()) return;
    lines_ = std::exchange(next_, LineArray());
    moved_ = 0;
}

}  // namespace freshet
