// Linked into every test: FRESHET_SIMD_LEVEL in the environment forces a level before main() starts. The library itself
// reads no environment. 77 tells ctest that this machine lacks the level.
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "simd.h"

namespace {

using freshet::simd::Level;

Level named(std::string_view name) {
    if (name == "portable") return Level::portable;
    if (name == "avx2") return Level::avx2;
    if (name == "avx512") return Level::avx512;
    std::fprintf(stderr, "FRESHET_SIMD_LEVEL: got %.*s, wanted portable, avx2 or avx512\n", static_cast<int>(name.size()),
                 name.data());
    std::exit(1);
}

const bool forced = [] {
    const char* wanted = std::getenv("FRESHET_SIMD_LEVEL");
    if (wanted != nullptr && !freshet::simd::force_level(named(wanted))) std::exit(77);
    return wanted != nullptr;
}();

}  // namespace
