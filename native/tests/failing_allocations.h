// Allocations of a thread that fail, for tests of what is left of a structure then. Include it in one file of a program:
// it replaces operator new.
#pragma once

#include <cstdlib>
#include <new>

// How many more allocations of this thread succeed; all if it is negative.
inline thread_local long allocations_left = -1;

// Inlined, malloc and free would be taken for a mismatch by the compiler.
[[gnu::noinline]] void* operator new(size_t size) {
    if (allocations_left == 0) throw std::bad_alloc();
    if (allocations_left > 0) --allocations_left;
    if (void* found = std::malloc(size > 0 ? size : 1)) return found;
    throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* at) noexcept { std::free(at); }
[[gnu::noinline]] void operator delete(void* at, size_t) noexcept { std::free(at); }
