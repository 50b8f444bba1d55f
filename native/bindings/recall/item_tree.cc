// ItemTree, ItemPlaces and best_of for pipeline/recall, which checks arguments first.
#include "recall/tree/item_tree.h"

#include <algorithm>

#include "bindings/arrays.h"
#include "recall/best_of.h"

using namespace springtide_bindings;
using springtide::ItemFilter;
using springtide::ItemPlaces;
using springtide::ItemTree;

namespace {

void register_tree(nb::module_& m) {
    nb::class_<ItemTree>(m, "ItemTree")
        .def(
            "__init__",
            [](ItemTree* self, In<uint64_t> ids, InRows<float> vectors, In<uint64_t> attributes, size_t fan_out,
               size_t layers) {
                nb::gil_scoped_release nogil;
                new (self) ItemTree({vectors.shape(1), fan_out, layers}, ids.data(), vectors.data(), attributes.data(),
                                    ids.size());
            },
            exact("ids"), exact("vectors"), exact("attributes"), exact("fan_out"), exact("layers"))
        .def_prop_ro("size", &ItemTree::size)
        .def_prop_ro("places", &ItemTree::places)
        .def_prop_ro("memory_bytes", &ItemTree::memory_bytes)
        .def("layer_begins",
             [](const ItemTree& self) {
                 return owned(std::vector<uint32_t>(self.layer_begins().begin(), self.layer_begins().end()));
             })
        .def("digest", &ItemTree::digest, WithoutGil())
        .def(
            "nearest",
            [](const ItemTree& self, InRows<float> vectors) {
                return owned(without_gil([&] { return self.nearest(vectors.data(), vectors.shape(0)); }));
            },
            exact("vectors"))
        .def(
            "put",
            [](ItemTree& self, In<uint64_t> ids, In<uint32_t> nodes, In<uint64_t> attributes) {
                return owned(without_gil([&] { return self.put(span_of(ids), span_of(nodes), span_of(attributes)); }));
            },
            exact("ids"), exact("nodes"), exact("attributes"))
        .def(
            "remove",
            [](ItemTree& self, In<uint64_t> ids) {
                nb::gil_scoped_release nogil;
                return self.remove(ids.data(), ids.size());
            },
            exact("ids"))
        .def(
            "nodes_below",
            [](const ItemTree& self, In<uint32_t> nodes, In<float> scores, size_t beam) {
                return owned(self.nodes_below(span_of(nodes), span_of(scores), beam));
            },
            exact("nodes"), exact("scores"), exact("beam"))
        .def(
            "items_below",
            [](const ItemTree& self, In<uint32_t> nodes, In<float> scores, size_t beam, In<uint64_t> filter,
               In<uint64_t> excluded) {
                const ItemFilter of{filter.data()[0], filter.data()[1], filter.data()[2]};
                return owned(self.items_below(span_of(nodes), span_of(scores), beam, of, span_of(excluded)));
            },
            exact("nodes"), exact("scores"), exact("beam"), exact("filter"), exact("excluded"))
        .def(
            "means",
            [](const ItemTree& self, InRows<float> rows, OutRows<float> out) {
                nb::gil_scoped_release nogil;
                self.means(rows.data(), rows.shape(1), out.data());
            },
            exact("rows"), exact("out"))
        .def(
            "ids",
            [](const ItemTree& self, In<uint32_t> places, Out<uint64_t> out) {
                std::transform(places.data(), places.data() + places.size(), out.data(),
                               [&](uint32_t place) { return self.id(place); });
            },
            exact("places"), exact("out"));
}

void register_places(nb::module_& m) {
    nb::class_<ItemPlaces>(m, "ItemPlaces")
        .def(nb::init<>())
        .def("put", [](ItemPlaces& self, In<uint64_t> ids) { return owned(self.put(span_of(ids))); }, exact("ids"))
        .def(
            "remove",
            [](ItemPlaces& self, In<uint64_t> ids) {
                for (const uint64_t id : span_of(ids)) self.remove(id);
            },
            exact("ids"))
        .def(
            "find",
            [](const ItemPlaces& self, In<uint64_t> ids, Out<uint32_t> places) {
                self.find(span_of(ids), places.data());
            },
            exact("ids"), exact("places"));
}

}  // namespace

void register_item_tree(nb::module_& m) {
    register_tree(m);
    register_places(m);
    m.def(
        "best_of",
        [](In<float> scores, In<uint64_t> ids, size_t k) {
            return owned(springtide::best_of(span_of(scores), span_of(ids), k));
        },
        exact("scores"), exact("ids"), exact("k"));
}
