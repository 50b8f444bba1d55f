// The index of handles: compared with a map over random operations for dense and sparse handles, and its memory.
#include "serving/handle_index.h"

#include <map>
#include <random>

#include "tests/expect.h"

namespace {

using springtide::HandleIndex;

constexpr uint32_t kLast = 0xfffffffe;

void agrees_with_a_map(uint32_t stride) {
    HandleIndex index;
    std::map<uint32_t, uint32_t> model;
    std::mt19937_64 random(7);
    for (int step = 0; step < 20'000; ++step) {
        const auto handle = static_cast<uint32_t>(random() % 500) * stride;
        if (random() % 3 == 0) {
            index.clear(handle);
            model.erase(handle);
        } else {
            index.set(handle, static_cast<uint32_t>(step));
            model[handle] = static_cast<uint32_t>(step);
        }
    }
    for (uint32_t i = 0; i < 500; ++i) {
        const auto found = model.find(i * stride);
        expect(index[i * stride] == (found == model.end() ? HandleIndex::kNoPlace : found->second), "place");
        expect(stride == 1 || index[i * stride + 1] == HandleIndex::kNoPlace, "no handle between");
    }
}

void the_first_and_last_handle_can_be_set() {
    HandleIndex index;
    expect(index[0] == HandleIndex::kNoPlace && index[kLast] == HandleIndex::kNoPlace, "empty");
    index.clear(kLast);
    index.set(kLast, 1);
    index.set(0, 2);
    expect(index[0] == 2 && index[kLast] == 1 && index[1] == HandleIndex::kNoPlace, "ends");
}

void cleared_lines_are_reused() {
    HandleIndex index;
    constexpr uint32_t kHandles = 1 << 18;
    for (uint32_t handle = 0; handle < kHandles; ++handle) index.set(handle, handle);
    const size_t full = index.memory_bytes();
    expect(full < kHandles * 17 / 4 + (2u << 20), "4.25 bytes a handle");
    for (uint32_t handle = 0; handle < kHandles; ++handle) index.clear(handle);
    for (uint32_t handle = kHandles; handle < 2 * kHandles; ++handle) index.set(handle, handle);
    expect(index.memory_bytes() <= full + kHandles / 2, "lines are reused");
}

}  // namespace

int main() {
    for (const uint32_t stride : {1u, 3u, 16u, 16'384u, 8'000'000u}) agrees_with_a_map(stride);
    the_first_and_last_handle_can_be_set();
    cleared_lines_are_reused();
}
