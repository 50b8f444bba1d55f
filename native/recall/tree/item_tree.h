// ItemTree: the items below a few layers of nodes, which a search descends with a wide beam.
//
// The first layer has items / fan_out^layers nodes, each further one fan_out below each node, and a node of the last
// layer about fan_out items: balanced clusters of the vectors (clusters.h). Nodes are numbered layer by layer; one array
// has the first child of each, so the children of a node are a range. Who searches scores nodes and items by numbers of
// its own, which it keeps by node and by place (item_places.h), and asks what lies below the best.
//
// An item that is put later joins a node of the last layer, which `nearest` finds; no other item or node changes, and a
// node may come to hold any number of items. Nodes keep the centres that they were built with: build another tree once
// many items have changed.
//
// Threads: not thread-safe; concurrent const calls are safe. Results follow from the calls before, at every SIMD level.
// Cost: building as in clusters.h for each layer; `nearest` reads first layer + fan_out * layers centres for an item; the
// rest is linear in what it gets and returns. Memory: about 40 bytes per item, and 4 * dim + 40 per node.
// Failure: as ItemPlaces; an item of a failed put may be below no node.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "recall/item_filter.h"
#include "recall/item_places.h"
#include "recall/tree/clusters.h"

namespace springtide {

struct TreeShape {
    size_t dim, fan_out, layers;
};

class ItemTree {
public:
    // Requires 1 <= dim, 2 <= fan_out, 1 <= layers; n finite vectors, [n, dim], with ids of their own. Item i has
    // place i. attributes[i] has bit a for attribute a.
    ItemTree(const TreeShape& shape, const uint64_t* ids, const float* vectors, const uint64_t* attributes, size_t n);

    // The nodes of layer l are numbered from layer_begins()[l] up to layer_begins()[l + 1]. A layer has at least one.
    std::span<const uint32_t> layer_begins() const { return layer_begins_; }

    // For each of n finite vectors, [n, dim], the node of the last layer that is reached from the first layer by the
    // nearest centre of each.
    std::vector<uint32_t> nearest(const float* vectors, size_t n) const;

    // Inserts or replaces items below nodes of the last layer, [n]; the last one of a repeated id counts. Returns their
    // places.
    std::vector<uint32_t> put(std::span<const uint64_t> ids, std::span<const uint32_t> nodes,
                              std::span<const uint64_t> attributes);

    // Removes items; returns how many of the ids were there.
    size_t remove(const uint64_t* ids, size_t n);

    // The children of the best `beam` nodes, all of one layer but the last, by scores, of equal ones the lower nodes.
    std::vector<uint32_t> nodes_below(std::span<const uint32_t> nodes, std::span<const float> scores,
                                      size_t beam) const;

    // The places of the items below the best `beam` nodes of the last layer that pass the filter; `excluded`, ascending,
    // are ids that are not to be found.
    std::vector<uint32_t> items_below(std::span<const uint32_t> nodes, std::span<const float> scores, size_t beam,
                                      const ItemFilter& filter, std::span<const uint64_t> excluded) const;

    // Means of rows, [places, width], of the items below each node, to out, [nodes, width]; zeros if there are none.
    void means(const float* rows, size_t width, float* out) const;

    // By place, below places().
    uint64_t id(uint32_t place) const { return places_.id(place); }

    // XXH64 of the first children and the centres, plus the sum over all items of XXH64(node, attributes; seed = id),
    // modulo 2^64.
    uint64_t digest() const;

    size_t nodes() const { return layer_begins_.back(); }
    size_t places() const { return node_of_.size(); }
    size_t size() const { return places_.size(); }
    size_t memory_bytes() const;

private:
    uint32_t last_layer() const { return layer_begins_[layer_begins_.size() - 2]; }
    std::vector<size_t> add_layer(const VectorRows& vectors, std::span<uint32_t> order, std::span<const size_t> ends,
                                  size_t layer);
    uint32_t nearest_of(const float* vector, uint32_t begin, uint32_t end) const;
    void detach(uint32_t place);

    const TreeShape shape_;
    std::vector<uint32_t> layer_begins_;
    std::vector<uint32_t> first_children_;          // by node before the last layer, and an end
    std::vector<float> centres_;                    // [nodes, dim]
    std::vector<std::vector<uint32_t>> items_;      // places below each node of the last layer
    ItemPlaces places_;
    std::vector<uint64_t> attributes_;              // by place
    std::vector<uint32_t> node_of_;                 // by place, counted in the last layer; kNoRow below none
};

}  // namespace springtide
