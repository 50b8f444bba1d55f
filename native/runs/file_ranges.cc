#include "runs/file_ranges.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>

namespace springtide {
namespace {

void read_range(int descriptor, uint64_t offset, uint64_t length, uint8_t* out) {
    while (length > 0) {
        const ssize_t count = pread(descriptor, out, length, static_cast<off_t>(offset));
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) throw std::invalid_argument("read at " + std::to_string(offset) + ": " + std::strerror(errno));
        if (count == 0) {
            std::memset(out, 0, length);
            return;
        }
        out += count;
        offset += static_cast<uint64_t>(count);
        length -= static_cast<uint64_t>(count);
    }
}

// Calls visit(offset, length) for ranges, consecutive ones joined.
template <class Visit>
void each_joined(std::span<const uint64_t> offsets, std::span<const uint32_t> lengths, Visit visit) {
    for (size_t i = 0; i < offsets.size();) {
        uint64_t end = offsets[i] + lengths[i];
        size_t next = i + 1;
        for (; next < offsets.size() && offsets[next] == end; ++next) end += lengths[next];
        visit(offsets[i], end - offsets[i]);
        i = next;
    }
}

}  // namespace

void read_ranges(int descriptor, std::span<const uint64_t> offsets, std::span<const uint32_t> lengths, uint8_t* out) {
    each_joined(offsets, lengths, [&](uint64_t offset, uint64_t length) {
        // Only advice: a file system that does not follow it serves the reads one by one.
        posix_fadvise(descriptor, static_cast<off_t>(offset), static_cast<off_t>(length), POSIX_FADV_WILLNEED);
    });
    each_joined(offsets, lengths, [&](uint64_t offset, uint64_t length) {
        read_range(descriptor, offset, length, out);
        out += length;
    });
}

}  // namespace springtide
