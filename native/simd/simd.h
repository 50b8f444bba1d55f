// Which vector instructions native/kernels may use: decided once from the processor, the same bytes at every level.
//
// Every source in native/kernels is compiled once per level (see simd.cmake) and defines its functions for the tag of
// that level, ThisLevel. How a component uses it:
//
//   kernels/thing.h    const ThingKernels& thing_kernels(simd::Portable);   // one line per level
//   kernels/thing.cc   const ThingKernels& thing_kernels(simd::ThisLevel) { ... }
//   thing.cc           simd::at_level([](auto level) -> auto& { return thing_kernels(level); }).work(...);
//
// A kernel keeps everything else of its own in an unnamed namespace and includes no header that defines inline
// functions outside one: the linker keeps a single copy of those, and it could be one that the machine cannot run.
// Threads: all functions may be called from any. Forcing a level takes effect with the next call of at_level.
#pragma once

namespace springtide::simd {

enum class Level { portable, avx2, avx512 };

// One tag per level; `lanes` is how many floats one register holds.
struct Portable { static constexpr int lanes = 4; };
struct Avx2 { static constexpr int lanes = 8; };
struct Avx512 { static constexpr int lanes = 16; };

#ifdef SPRINGTIDE_SIMD
using ThisLevel = SPRINGTIDE_SIMD;
#endif

// The highest level this machine has. Portable is the baseline of its architecture and always there.
Level best_level();

// The level in use: the best one, unless another was forced.
Level level();

// Uses `wanted` from now on, in the whole process. False, and nothing changed, where the machine lacks it.
[[nodiscard]] bool force_level(Level wanted);

// Calls `choose` with the tag of the level in use. Costs a load and a branch: for batches, not for rows.
template <class Choose>
decltype(auto) at_level(Choose choose) {
#ifdef __x86_64__
    switch (level()) {
        case Level::avx512: return choose(Avx512{});
        case Level::avx2: return choose(Avx2{});
        case Level::portable: break;
    }
#endif
    return choose(Portable{});
}

}  // namespace springtide::simd
