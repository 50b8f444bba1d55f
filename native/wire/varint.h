// Bounds-checked reading of bytes and zigzag varints, as in Kafka records and Avro bodies.
#pragma once

#include <cstddef>
#include <cstdint>

namespace springtide {

// Reads bytes from front to back. After an error `good` is false and all numbers are 0.
struct ByteReader {
    const uint8_t* at;
    const uint8_t* end;
    bool good = true;

    size_t left() const { return static_cast<size_t>(end - at); }

    // At most ten bytes, with one bit in the tenth.
    int64_t read_varint() {
        if (at < end && *at < 0x80) {
            const uint64_t small = *at++;
            return unzigzag(small);
        }
        uint64_t value = 0;
        for (int shift = 0; shift < 64; shift += 7) {
            if (at == end) break;
            const uint64_t byte = *at++;
            if (shift == 63 && byte > 1) break;
            value |= (byte & 0x7F) << shift;
            if (byte < 0x80) return unzigzag(value);
        }
        good = false;
        return 0;
    }

    // The next `size` bytes; null and an error if there are fewer.
    const uint8_t* read(int64_t size) {
        if (size < 0 || static_cast<uint64_t>(size) > left()) {
            good = false;
            return nullptr;
        }
        const uint8_t* begin = at;
        at += size;
        return begin;
    }

private:
    static int64_t unzigzag(uint64_t value) {
        return static_cast<int64_t>(value >> 1) ^ -static_cast<int64_t>(value & 1);
    }
};

}  // namespace springtide
