// The index of rows by key while memory runs out: an insert that fails changes nothing, wherever in a growth it fails.
#include "table/index/key_index.h"

#include <numeric>
#include <vector>

#include "tests/expect.h"
#include "tests/failing_allocations.h"

namespace {

using springtide::KeyIndex;
using springtide::kNoRow;

struct KeyOf {
    const std::vector<uint64_t>& keys;

    uint64_t operator()(uint32_t row) const { return keys[row]; }
    [[gnu::always_inline]] void prefetch(uint32_t row) const { __builtin_prefetch(&keys[row]); }
};

// Whether a new key fits into memory that is exhausted.
bool inserted(KeyIndex& index, uint64_t key, uint32_t row, const KeyOf& key_of) {
    allocations_left = 0;
    try {
        index.insert(key, row, key_of);
        allocations_left = -1;
        return true;
    } catch (const std::bad_alloc&) {
        allocations_left = -1;
        return false;
    }
}

}  // namespace

int main() {
    std::vector<uint64_t> keys(700'000);
    std::iota(keys.begin(), keys.end(), uint64_t{1});
    const KeyOf key_of{keys};
    KeyIndex index;
    size_t failures = 0;
    for (uint32_t row = 0; row < keys.size(); ++row) {
        if (inserted(index, keys[row], row, key_of)) continue;
        ++failures;
        expect(index.size() == row, "a failed insert adds no key");
        index.insert(keys[row], row, key_of);
    }
    expect(failures > 3, "memory runs out while the index grows");
    std::vector<bool> seen(keys.size());
    index.for_each(key_of, [&](uint64_t, uint32_t row) {
        expect(!seen[row], "a key is in the index once");
        seen[row] = true;
    });
    for (uint32_t row = 0; row < keys.size(); ++row) {
        expect(index.find(keys[row], key_of) == row, "a key is found");
        index.erase(keys[row], row);
        expect(index.find(keys[row], key_of) == kNoRow, "an erased key is not found");
    }
    expect(index.size() == 0, "all keys are erased");
}
