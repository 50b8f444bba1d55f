#include "simd/simd.h"

#include <atomic>

namespace springtide::simd {
namespace {

std::atomic<Level>& current() {
    static std::atomic<Level> level = best_level();
    return level;
}

}  // namespace

Level best_level() {
#ifdef __x86_64__
    __builtin_cpu_init();  // required for calls before static constructors have run
    // These also check that the operating system saves the registers.
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        return __builtin_cpu_supports("avx512vnni") ? Level::vnni : Level::avx512;
    if (__builtin_cpu_supports("avx2")) return Level::avx2;
#endif
    return Level::portable;
}

Level level() { return current().load(std::memory_order_relaxed); }

bool force_level(Level wanted) {
    if (wanted > best_level()) return false;
    current().store(wanted, std::memory_order_relaxed);
    return true;
}

}  // namespace springtide::simd
