// The checks of these tests: a failed one prints its description and ends the program.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <stdexcept>

inline void expect(bool holds, const char* what) {
    if (holds) return;
    std::fprintf(stderr, "failed: %s\n", what);
    std::exit(1);
}

// Expects std::invalid_argument.
template <class Call>
void expect_rejected(Call call, const char* what) {
    try {
        call();
    } catch (const std::invalid_argument&) {
        return;
    }
    expect(false, what);
}
