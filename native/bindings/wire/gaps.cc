// Gap encoding for pipeline/formats/gaps.py, which checks dtypes first.
#include "wire/gaps.h"

#include <utility>

#include "bindings/arrays.h"

using namespace springtide_bindings;

void register_gaps(nb::module_& m) {
    m.def(
        "encode_gaps",
        [](In<uint64_t> values) {
            std::vector<uint8_t> encoded;
            without_gil([&] { springtide::append_gaps(values.data(), values.size(), encoded); });
            return bytes_of(encoded);
        },
        exact("values"));
    // (defect or None, values)
    m.def(
        "decode_gaps",
        [](nb::bytes encoded) {
            std::vector<uint64_t> values;
            const auto* bytes = static_cast<const uint8_t*>(encoded.data());
            const char* defect = without_gil([&] {
                values.resize(springtide::count_gaps(bytes, encoded.size()));
                return springtide::read_gaps(bytes, encoded.size(), values.data());
            });
            return nb::make_tuple(defect, owned(std::move(values)));
        },
        exact("spelled"));
}
