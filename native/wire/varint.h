// Zigzag varints, as Kafka's records and Avro's bodies have them, read with every bound checked.
#pragma once

#include <cstddef>
#include <cstdint>

namespace springtide {

// Bytes that are read from front to back. After something went wrong `good` is false and every number 0.
struct Bytes {
    const uint8_t* at;
    const uint8_t* end;
    bool good = true;

    size_t left() const { return static_cast<size_t>(end - at); }

    // At most ten bytes; the tenth carries one bit.
    int64_t take_varint() {
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

    // The next `size` bytes; null, and wrong, where there are not so many.
    const uint8_t* take(int64_t size) {
        if (size < 0 || static_cast<uint64_t>(size) > left()) {
            good = false;
            return nullptr;
        }
        const uint8_t* found = at;
        at += size;
        return found;
    }

private:
    static int64_t unzigzag(uint64_t value) {
        return static_cast<int64_t>(value >> 1) ^ -static_cast<int64_t>(value & 1);
    }
};

}  // namespace springtide
