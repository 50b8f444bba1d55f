// Runtime dispatch of the vector instructions in simd/kernels/. The level is detected from the processor once; results
// are bit-identical at every level.
//
// Every source in simd/kernels/ is compiled once per level (see core.cmake), those in simd/kernels/vnni/ for Vnni only,
// and defines its functions for the tag of that level, ThisLevel. A component uses it as follows:
//
//   simd/kernels/thing.h    const ThingKernels& thing_kernels(simd::Portable);   // one line per level
//   simd/kernels/thing.cc   const ThingKernels& thing_kernels(simd::ThisLevel) { ... }
//   thing.cc                simd::at_level([](auto level) -> auto& { return thing_kernels(level); }).work(...);
//
// A kernel defines everything else in an unnamed namespace and includes no header with inline functions outside of one:
// the linker keeps a single copy of such a function, possibly one with instructions the machine lacks.
// Threads: all functions are thread-safe. A forced level takes effect with the next call of at_level.
#pragma once

namespace springtide::simd {

enum class Level { portable, avx2, avx512, vnni };

// One tag per level; `lanes` is the number of floats in a register.
struct Portable { static constexpr int lanes = 4; };
struct Avx2 { static constexpr int lanes = 8; };
struct Avx512 { static constexpr int lanes = 16; };
// AVX-512 with VNNI, for kernels that gain from it (simd/kernels/vnni); every other kernel is chosen for Avx512.
struct Vnni : Avx512 {};

#ifdef SPRINGTIDE_SIMD
using ThisLevel = SPRINGTIDE_SIMD;
#endif

// The highest level this machine supports. Portable is the baseline of the architecture and always supported.
Level best_level();

// The level in use: the highest one unless another was forced.
Level level();

// Sets the level of the whole process. Returns false and changes nothing if the machine does not support it.
[[nodiscard]] bool force_level(Level wanted);

// Calls `choose` with the tag of the level in use. Costs a load and a branch: call it per batch, not per row.
template <class Choose>
decltype(auto) at_level(Choose choose) {
#ifdef __x86_64__
    switch (level()) {
        case Level::vnni: return choose(Vnni{});
        case Level::avx512: return choose(Avx512{});
        case Level::avx2: return choose(Avx2{});
        case Level::portable: break;
    }
#endif
    return choose(Portable{});
}

}  // namespace springtide::simd
