// ScanIndex for pipeline/recall/scan_index.py, which checks arguments first.
#include "recall/scan/scan_index.h"

#include <algorithm>

#include "bindings/arrays.h"

using namespace springtide_bindings;
using springtide::FoundItems;
using springtide::ScanIndex;
using springtide::SearchOptions;

namespace {

// filters: [n, 3], all, any and none of each query; excluded: ids, ascending within offsets[q] .. offsets[q + 1].
std::vector<SearchOptions> options_of(const InRows<uint64_t>& filters, const In<uint64_t>& excluded,
                                      const In<int64_t>& offsets) {
    std::vector<SearchOptions> options;
    for (size_t q = 0; q < filters.shape(0); ++q) {
        const uint64_t* filter = filters.data() + 3 * q;
        const uint64_t *first = excluded.data() + offsets.data()[q], *last = excluded.data() + offsets.data()[q + 1];
        options.push_back({{filter[0], filter[1], filter[2]}, {first, last}});
    }
    return options;
}

// costs: [n, 3], items found, survivors and passes of each query.
void search(const ScanIndex& self, InRows<float> queries, InRows<uint64_t> filters, In<uint64_t> excluded,
            In<int64_t> offsets, OutRows<uint64_t> ids, OutRows<float> scores, OutRows<int64_t> costs) {
    nb::gil_scoped_release nogil;
    const size_t n = queries.shape(0), k = ids.shape(1);
    const std::vector<SearchOptions> options = options_of(filters, excluded, offsets);
    const std::vector<FoundItems> found = self.search(queries.data(), n, k, options.data());
    for (size_t q = 0; q < n; ++q) {
        const auto& items = found[q].items;
        for (size_t i = 0; i < items.size(); ++i) {
            ids.data()[q * k + i] = items[i].id;
            scores.data()[q * k + i] = items[i].score;
        }
        const size_t cost[] = {items.size(), found[q].survivors, found[q].passes};
        std::copy(std::begin(cost), std::end(cost), costs.data() + 3 * q);
    }
}

}  // namespace

void register_scan_index(nb::module_& m) {
    nb::class_<ScanIndex>(m, "ScanIndex")
        .def(
            "__init__",
            [](ScanIndex* self, size_t dim, size_t attributes, size_t expected, size_t least_stride) {
                new (self) ScanIndex(dim, attributes, {expected, least_stride});
            },
            exact("dim"), exact("attributes"), exact("expected"), exact("least_stride"))
        .def_prop_ro("size", &ScanIndex::size)
        .def_prop_ro("memory_bytes", &ScanIndex::memory_bytes)
        .def("digest", &ScanIndex::digest, WithoutGil())
        .def(
            "first_uncodable",
            [](const ScanIndex& self, InRows<float> vectors) {
                nb::gil_scoped_release nogil;
                return self.first_uncodable(vectors.data(), vectors.shape(0));
            },
            exact("vectors"))
        .def(
            "put",
            [](ScanIndex& self, In<uint64_t> ids, InRows<float> vectors, In<uint64_t> attributes) {
                nb::gil_scoped_release nogil;
                self.put(ids.data(), vectors.data(), attributes.data(), ids.size());
            },
            exact("ids"), exact("vectors"), exact("attributes"))
        .def(
            "remove",
            [](ScanIndex& self, In<uint64_t> ids) {
                nb::gil_scoped_release nogil;
                return self.remove(ids.data(), ids.size());
            },
            exact("ids"))
        .def("search", &search, exact("queries"), exact("filters"), exact("excluded"), exact("offsets"), exact("ids"),
             exact("scores"), exact("costs"));
}
