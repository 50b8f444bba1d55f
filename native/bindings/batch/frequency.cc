// Frequencies for pipeline/trainer/items/frequency.py, whose buckets are numbers of cells.
#include "batch/frequency.h"

#include <stdexcept>

#include "bindings/arrays.h"

using namespace springtide_bindings;
using springtide::FrequencyCell;

void register_frequency(nb::module_& m) {
    m.def(
        "advance_frequencies",
        [](Out<uint8_t> cells, In<int64_t> buckets, int64_t first, double rate) {
            const auto count = static_cast<int64_t>(cells.size() / sizeof(FrequencyCell));
            for (const int64_t bucket : span_of(buckets))
                if (bucket < 0 || bucket >= count) throw std::invalid_argument("buckets: got one outside the cells");
            nb::gil_scoped_release nogil;
            springtide::advance_frequencies(reinterpret_cast<FrequencyCell*>(cells.data()), span_of(buckets), first,
                                            rate);
        },
        exact("cells"), exact("buckets"), exact("first"), exact("rate"));
}
