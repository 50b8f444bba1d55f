// Linked into every test: the environment variable SPRINGTIDE_SIMD_LEVEL forces a level before main() starts. The
// library reads no environment variables. Exit code 77 makes ctest skip a level that the machine does not support.
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "simd/simd.h"

namespace {

using springtide::simd::Level;

Level named(std::string_view name) {
    if (name == "portable") return Level::portable;
    if (name == "avx2") return Level::avx2;
    if (name == "avx512") return Level::avx512;
    if (name == "vnni") return Level::vnni;
    std::fprintf(stderr, "SPRINGTIDE_SIMD_LEVEL: got %.*s, wanted portable, avx2, avx512 or vnni\n",
                 static_cast<int>(name.size()), name.data());
    std::exit(1);
}

const bool forced = [] {
    const char* wanted = std::getenv("SPRINGTIDE_SIMD_LEVEL");
    if (wanted != nullptr && !springtide::simd::force_level(named(wanted))) std::exit(77);
    return wanted != nullptr;
}();

}  // namespace
