#include "recall/tree/item_tree.h"

#include <algorithm>
#include <numeric>

#include "keys/xxh64.h"
#include "recall/best_of.h"
#include "recall/tree/clusters.h"

namespace springtide {
namespace {

// How many clusters of at most fan_out^layers items n items take; at least one.
size_t clusters_of(size_t n, size_t fan_out, size_t layers) {
    for (; layers > 0 && n > 1; --layers) n = (n + fan_out - 1) / fan_out;
    return std::max<size_t>(n, 1);
}

// The numbers of the best nodes, ascending, so that what lies below is read forwards.
std::vector<uint32_t> best_nodes(std::span<const uint32_t> nodes, std::span<const float> scores, size_t beam) {
    const std::vector<uint64_t> ids(nodes.begin(), nodes.end());
    std::vector<uint32_t> best = best_of(scores, ids, beam);
    for (uint32_t& each : best) each = nodes[each];
    std::sort(best.begin(), best.end());
    return best;
}

bool passes(uint64_t attributes, const ItemFilter& filter) {
    return (attributes & filter.all) == filter.all && (filter.any == 0 || (attributes & filter.any) != 0) &&
           (attributes & filter.none) == 0;
}

}  // namespace

ItemTree::ItemTree(const TreeShape& shape, const uint64_t* ids, const float* vectors, const uint64_t* attributes,
                   size_t n)
    : shape_(shape), layer_begins_{0}, attributes_(attributes, attributes + n), node_of_(n) {
    places_.put({ids, n});
    std::vector<uint32_t> order(n);
    std::iota(order.begin(), order.end(), 0u);
    std::vector<size_t> ends{n};
    for (size_t layer = 0; layer < shape.layers; ++layer) ends = add_layer({vectors, shape.dim}, order, ends, layer);
    first_children_.push_back(layer_begins_.back());
    size_t begin = 0;
    for (const size_t end : ends) {
        const auto below = std::span(order).subspan(begin, end - begin);
        for (const uint32_t place : below) node_of_[place] = static_cast<uint32_t>(items_.size());
        items_.emplace_back(below.begin(), below.end());
        begin = end;
    }
}

// Divides the runs of places below the nodes of the layer above, of which `ends` has the ends; returns those of the new
// nodes.
std::vector<size_t> ItemTree::add_layer(const VectorRows& vectors, std::span<uint32_t> order,
                                        std::span<const size_t> ends, size_t layer) {
    std::vector<size_t> found;
    size_t begin = 0;
    for (const size_t end : ends) {
        if (layer > 0) first_children_.push_back(static_cast<uint32_t>(layer_begins_.back() + found.size()));
        const size_t count = clusters_of(end - begin, shape_.fan_out, shape_.layers - layer);
        cluster(vectors, order.subspan(begin, end - begin), count, begin, found);
        begin = end;
    }
    layer_begins_.push_back(static_cast<uint32_t>(layer_begins_.back() + found.size()));
    begin = 0;
    for (const size_t end : found) {
        centres_.resize(centres_.size() + shape_.dim);
        mean_of(vectors, order.subspan(begin, end - begin), &centres_[centres_.size() - shape_.dim]);
        begin = end;
    }
    return found;
}

std::vector<uint32_t> ItemTree::put(std::span<const uint64_t> ids, std::span<const uint32_t> nodes,
                                    std::span<const uint64_t> attributes) {
    std::vector<uint32_t> places = places_.put(ids);
    for (size_t i = 0; i < ids.size(); ++i) {
        const uint32_t place = places[i];
        if (place >= attributes_.size()) attributes_.resize(place + 1);
        if (place >= node_of_.size()) node_of_.resize(place + 1, kNoRow);
        detach(place);
        const uint32_t node = nodes[i] - last_layer();
        items_[node].push_back(place);
        node_of_[place] = node;
        attributes_[place] = attributes[i];
    }
    return places;
}

size_t ItemTree::remove(const uint64_t* ids, size_t n) {
    size_t removed = 0;
    for (size_t i = 0; i < n; ++i) {
        const uint32_t place = places_.remove(ids[i]);
        if (place == kNoRow) continue;
        detach(place);
        ++removed;
    }
    return removed;
}

// An item of a put that failed may have a place and no node.
void ItemTree::detach(uint32_t place) {
    if (place >= node_of_.size() || node_of_[place] == kNoRow) return;
    std::vector<uint32_t>& items = items_[node_of_[place]];
    items.erase(std::find(items.begin(), items.end(), place));
    node_of_[place] = kNoRow;
}

std::vector<uint32_t> ItemTree::nearest(const float* vectors, size_t n) const {
    std::vector<uint32_t> found(n);
    for (size_t i = 0; i < n; ++i) {
        const float* vector = vectors + i * shape_.dim;
        uint32_t& node = found[i] = nearest_of(vector, 0, layer_begins_[1]);
        while (node < last_layer()) node = nearest_of(vector, first_children_[node], first_children_[node + 1]);
    }
    return found;
}

// By squared distance, of equal ones the lowest.
uint32_t ItemTree::nearest_of(const float* vector, uint32_t begin, uint32_t end) const {
    float least = squared_distance(vector, &centres_[begin * shape_.dim], shape_.dim);
    uint32_t found = begin;
    for (uint32_t node = begin + 1; node < end; ++node) {
        const float distance = squared_distance(vector, &centres_[node * shape_.dim], shape_.dim);
        if (distance < least) least = distance, found = node;
    }
    return found;
}

std::vector<uint32_t> ItemTree::nodes_below(std::span<const uint32_t> nodes, std::span<const float> scores,
                                            size_t beam) const {
    std::vector<uint32_t> below;
    for (const uint32_t node : best_nodes(nodes, scores, beam))
        for (uint32_t child = first_children_[node]; child < first_children_[node + 1]; ++child) below.push_back(child);
    return below;
}

std::vector<uint32_t> ItemTree::items_below(std::span<const uint32_t> nodes, std::span<const float> scores, size_t beam,
                                            const ItemFilter& filter, std::span<const uint64_t> excluded) const {
    std::vector<uint32_t> below;
    for (const uint32_t node : best_nodes(nodes, scores, beam))
        for (const uint32_t place : items_[node - last_layer()])
            if (passes(attributes_[place], filter) && !std::binary_search(excluded.begin(), excluded.end(), id(place)))
                below.push_back(place);
    return below;
}

// Sums go from the last layer up.
void ItemTree::means(const float* rows, size_t width, float* out) const {
    std::vector<double> sums(nodes() * width), counts(nodes());
    for (size_t node = nodes(); node-- > 0;) {
        double* sum = sums.data() + node * width;
        if (node >= last_layer()) {
            for (const uint32_t place : items_[node - last_layer()])
                for (size_t c = 0; c < width; ++c) sum[c] += rows[place * width + c];
            counts[node] = static_cast<double>(items_[node - last_layer()].size());
        } else {
            for (uint32_t child = first_children_[node]; child < first_children_[node + 1]; ++child) {
                for (size_t c = 0; c < width; ++c) sum[c] += sums[child * width + c];
                counts[node] += counts[child];
            }
        }
        for (size_t c = 0; c < width; ++c)
            out[node * width + c] = static_cast<float>(sum[c] / std::max(counts[node], 1.0));
    }
}

uint64_t ItemTree::digest() const {
    uint64_t sum = xxh64(first_children_.data(), first_children_.size() * sizeof(uint32_t), 0);
    sum += xxh64(centres_.data(), centres_.size() * sizeof(float), 1);
    for (size_t place = 0; place < node_of_.size(); ++place) {
        if (node_of_[place] == kNoRow) continue;
        const uint64_t item[] = {node_of_[place], attributes_[place]};
        sum += xxh64(item, sizeof(item), id(static_cast<uint32_t>(place)));
    }
    return sum;
}

size_t ItemTree::memory_bytes() const {
    size_t below = items_.capacity() * sizeof(items_[0]);
    for (const auto& items : items_) below += items.capacity() * sizeof(uint32_t);
    return below + places_.memory_bytes() + centres_.capacity() * sizeof(float) +
           attributes_.capacity() * sizeof(uint64_t) +
           (node_of_.capacity() + first_children_.capacity()) * sizeof(uint32_t);
}

}  // namespace springtide
