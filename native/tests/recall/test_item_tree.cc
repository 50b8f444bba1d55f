// The tree of items without Python: every item below one node of each layer, any shape and vectors up to the ends of the
// range, random changes against a map, and concurrent searches.
#include "recall/tree/item_tree.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "recall/best_of.h"
#include "tests/expect.h"
#include "tests/failing_allocations.h"

namespace {

using springtide::ItemTree;
using springtide::TreeShape;

std::vector<float> drawn(size_t count, float scale, uint64_t seed) {
    std::mt19937_64 random(seed);
    std::vector<float> found(count);
    for (float& x : found) x = scale * (static_cast<float>(random() % 2001) / 1000 - 1);
    return found;
}

ItemTree tree_of(size_t n, const TreeShape& shape, float scale) {
    std::vector<uint64_t> ids(n);
    std::iota(ids.begin(), ids.end(), uint64_t{100});
    return {shape, ids.data(), drawn(n * shape.dim, scale, n).data(), std::vector<uint64_t>(n).data(), n};
}

// The items below some nodes of layer l, by a beam that holds every node.
std::vector<uint32_t> below(const ItemTree& tree, std::vector<uint32_t> nodes, size_t layer) {
    const size_t layers = tree.layer_begins().size() - 1;
    for (; layer + 1 < layers; ++layer) nodes = tree.nodes_below(nodes, std::vector<float>(nodes.size()), nodes.size());
    return tree.items_below(nodes, std::vector<float>(nodes.size()), nodes.size(), {}, {});
}

std::vector<uint32_t> layer_of(const ItemTree& tree, size_t layer) {
    std::vector<uint32_t> nodes(tree.layer_begins()[layer + 1] - tree.layer_begins()[layer]);
    std::iota(nodes.begin(), nodes.end(), tree.layer_begins()[layer]);
    return nodes;
}

void every_item_is_below_one_node_of_each_layer(size_t n, const TreeShape& shape, float scale) {
    const ItemTree tree = tree_of(n, shape, scale), same = tree_of(n, shape, scale);
    expect(tree.digest() == same.digest(), "equal items give equal trees");
    for (size_t layer = 0; layer < shape.layers; ++layer) {
        std::vector<uint32_t> found;
        const double most = std::pow(static_cast<double>(shape.fan_out), static_cast<double>(shape.layers - layer));
        for (const uint32_t node : layer_of(tree, layer)) {
            const std::vector<uint32_t> items = below(tree, {node}, layer);
            expect(static_cast<double>(items.size()) <= most, "no node holds more than its share");
            found.insert(found.end(), items.begin(), items.end());
        }
        std::sort(found.begin(), found.end());
        std::vector<uint32_t> all(n);
        std::iota(all.begin(), all.end(), 0u);
        expect(found == all, "each item is below one node");
    }
}

void changes_are_those_of_a_map() {
    constexpr size_t kDim = 3;
    ItemTree tree = tree_of(50, {kDim, 4, 2}, 1);
    std::map<uint64_t, uint64_t> wanted;
    for (uint64_t id = 100; id < 150; ++id) wanted[id] = 0;
    std::mt19937_64 random(7);
    for (int round = 0; round < 500; ++round) {
        const uint64_t id = 90 + random() % 80, attributes = random() % 4;
        if (random() % 2 == 0) {
            expect(tree.remove(&id, 1) == wanted.erase(id), "a removed item was there");
        } else {
            const uint32_t place = tree.put({&id, 1}, tree.nearest(drawn(kDim, 1, random()).data(), 1), {&attributes, 1})[0];
            expect(tree.id(place) == id && place < tree.places(), "an item has a place");
            wanted[id] = attributes;
        }
        const std::vector<uint32_t> nodes = layer_of(tree, 1);
        const std::vector<uint64_t> excluded{101, 120};
        std::set<uint64_t> found, allowed;
        for (const uint32_t place :
             tree.items_below(nodes, std::vector<float>(nodes.size()), nodes.size(), {1, 0, 2}, excluded))
            found.insert(tree.id(place));
        for (const auto& [known, word] : wanted)
            if (word == 1 && known != 101 && known != 120) allowed.insert(known);
        expect(found == allowed && tree.size() == wanted.size(), "items are those of a map");
    }
}

// Whether a put of new items succeeds with so many allocations; after one that fails, they can be removed and put again.
bool put_with(long allocations) {
    constexpr size_t kDim = 3, kNew = 40;
    ItemTree tree = tree_of(20, {kDim, 4, 1}, 1);
    std::vector<uint64_t> ids(kNew);
    std::iota(ids.begin(), ids.end(), uint64_t{1'000});
    const std::vector<uint64_t> attributes(kNew);
    const std::vector<uint32_t> nodes = tree.nearest(drawn(kNew * kDim, 1, 9).data(), kNew);
    bool succeeds = true;
    allocations_left = allocations;
    try {
        tree.put(ids, nodes, attributes);
    } catch (const std::bad_alloc&) {
        succeeds = false;
    }
    allocations_left = -1;
    expect(tree.remove(ids.data(), kNew) <= kNew && tree.size() == 20, "items of a failed put can be removed");
    expect(below(tree, layer_of(tree, 0), 0).size() == 20, "the items before are found");
    tree.put(ids, nodes, attributes);
    expect(below(tree, layer_of(tree, 0), 0).size() == 20 + kNew, "they can be put again");
    return succeeds;
}

void a_put_that_fails_harms_nothing() {
    long allocations = 0;
    while (!put_with(allocations)) ++allocations;
    expect(allocations > 5, "a put allocates");
}

void best_of_is_a_sort() {
    std::mt19937_64 random(3);
    for (size_t n = 0; n < 40; ++n) {
        std::vector<float> scores(n);
        std::vector<uint64_t> ids(n);
        for (size_t i = 0; i < n; ++i) scores[i] = static_cast<float>(random() % 5), ids[i] = i * 7919 % 41;
        std::vector<uint32_t> wanted(n);
        std::iota(wanted.begin(), wanted.end(), 0u);
        std::sort(wanted.begin(), wanted.end(), [&](uint32_t a, uint32_t b) {
            return scores[a] > scores[b] || (scores[a] == scores[b] && ids[a] < ids[b]);
        });
        const size_t k = 1 + random() % 50;
        wanted.resize(std::min(k, n));
        expect(springtide::best_of(scores, ids, k) == wanted, "the best are the first of a sort");
    }
}

void searches_at_once() {
    const ItemTree tree = tree_of(2'000, {8, 8, 2}, 1);
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i)
        threads.emplace_back([&] {
            for (int round = 0; round < 20; ++round)
                expect(below(tree, layer_of(tree, 0), 0).size() == 2'000, "every search finds all");
        });
    for (std::thread& thread : threads) thread.join();
}

}  // namespace

int main() {
    for (const size_t n : {0, 1, 2, 7, 100, 1'500}) {
        every_item_is_below_one_node_of_each_layer(n, {5, 4, 2}, 1);
        every_item_is_below_one_node_of_each_layer(n, {16, 2, 4}, 0x1p40f);
        every_item_is_below_one_node_of_each_layer(n, {1, 1'024, 1}, 0x1p-140f);
        every_item_is_below_one_node_of_each_layer(n, {33, 10, 1}, 0);
    }
    changes_are_those_of_a_map();
    a_put_that_fails_harms_nothing();
    best_of_is_a_sort();
    searches_at_once();
}
