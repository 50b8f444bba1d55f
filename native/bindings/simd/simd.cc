// The SIMD level by name, for tests and benchmarks.
#include "simd/simd.h"

#include <nanobind/nanobind.h>

#include <array>
#include <string>

namespace nb = nanobind;

namespace {

constexpr std::array kNames = {"portable", "avx2", "avx512", "vnni"};

using springtide::simd::Level;

const char* name_of(Level level) { return kNames[static_cast<size_t>(level)]; }

nb::list levels() {
    nb::list names;
    for (size_t i = 0; i <= static_cast<size_t>(springtide::simd::best_level()); ++i) names.append(nb::str(kNames[i]));
    return names;
}

bool force(const char* wanted) {
    for (size_t i = 0; i < kNames.size(); ++i)
        if (std::string(wanted) == kNames[i]) return springtide::simd::force_level(static_cast<Level>(i));
    return false;
}

}  // namespace

void register_simd(nb::module_& m) {
    m.def("simd_levels", &levels);
    m.def("simd_level", [] { return name_of(springtide::simd::level()); });
    m.def("force_simd_level", &force, nb::arg("wanted"));
}
