// Typed values from a fuzz input. Beyond its end values are zero, so every input is valid.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

class Input {
public:
    Input(const uint8_t* bytes, size_t size) : at_(bytes), end_(bytes + size) {}

    template <typename T>
    T take() {
        T value{};
        take_into(&value, sizeof(value));
        return value;
    }

    template <typename T>
    std::vector<T> take_many(size_t n) {
        std::vector<T> values(n);
        if (n > 0) take_into(values.data(), n * sizeof(T));
        return values;
    }

    // In [0, max].
    size_t take_size(size_t max) { return take<uint16_t>() % (max + 1); }

    bool empty() const { return at_ == end_; }
    size_t left() const { return static_cast<size_t>(end_ - at_); }

private:
    void take_into(void* value, size_t size) {
        const size_t found = std::min(size, left());
        if (found > 0) std::memcpy(value, at_, found);
        at_ += found;
    }

    const uint8_t* at_;
    const uint8_t* end_;
};

// A condition that must hold for every input.
inline void must(bool holds, const char* what) {
    if (holds) return;
    std::fprintf(stderr, "failed: %s\n", what);
    std::abort();
}
