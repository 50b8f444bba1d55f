// The join index without Python: compared with a map over random operations, for ids with and without hash collisions.
#include "join/join_index.h"

#include <array>
#include <map>
#include <random>

#include "tests/expect.h"

namespace {

using springtide::JoinIndex;
using Id = std::array<uint64_t, 2>;

constexpr uint32_t kBuckets = 7;

void agrees_with_a_map(Id (*id_of)(uint64_t)) {
    JoinIndex index;
    std::map<Id, uint64_t> model;
    std::mt19937_64 random(5);
    for (int step = 0; step < 60'000; ++step) {
        const Id id = id_of(random() % 900);
        const auto known = model.find(id);
        const uint64_t wanted = known == model.end() ? JoinIndex::kNone : known->second;
        uint64_t out;
        index.match(id.data(), 1, &out);
        expect(out == wanted, "match");
        // Phases of growth and decline, so that the table doubles and halves.
        if (random() % 8 < (step / 6'000 % 2 == 0 ? 6u : 2u)) {
            const uint64_t place = (random() % kBuckets) << 32 | static_cast<uint64_t>(step);
            index.insert(id.data(), &place, 1, &out);
            expect(out == wanted, "insert");
            model.emplace(id, place);
        } else if (random() % 200 == 0) {
            const auto bucket = static_cast<uint32_t>(random() % kBuckets);
            const size_t removed = std::erase_if(model, [&](const auto& each) { return each.second >> 32 == bucket; });
            expect(index.remove_bucket(bucket) == removed, "remove_bucket");
        } else {
            expect(index.remove(id.data(), 1) == model.erase(id), "remove");
        }
        expect(index.size() == model.size(), "size");
        expect(index.capacity() == 16 || model.size() * 8 >= index.capacity() / 2, "capacity follows the size");
    }
}

void reserved_capacity_is_sufficient() {
    JoinIndex index;
    index.reserve(1'000);
    const size_t capacity = index.capacity(), bytes = index.memory_bytes();
    for (uint64_t n = 0; n < 1'000; ++n) {
        const Id id{n, n};
        uint64_t out;
        index.insert(id.data(), &n, 1, &out);
        expect(out == JoinIndex::kNone, "new");
    }
    expect(index.capacity() == capacity && index.memory_bytes() == bytes, "nothing grew");
    expect(index.remove_bucket(0) == 1'000 && index.capacity() == 16, "the memory is freed");
}

}  // namespace

int main() {
    reserved_capacity_is_sufficient();
    agrees_with_a_map([](uint64_t n) { return Id{n * 0x9E3779B185EBCA87, n * 0xC2B2AE3D27D4EB4F}; });
    agrees_with_a_map([](uint64_t n) { return Id{n, n}; });
    agrees_with_a_map([](uint64_t n) { return Id{0, n << 54}; });
}
