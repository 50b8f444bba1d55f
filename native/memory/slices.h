// in_slices: splits a batch into even slices, one per thread, for work on independent items.
#pragma once

#include <algorithm>
#include <cstddef>
#include <system_error>
#include <thread>
#include <vector>

namespace springtide {

// Calls work(first, last) for slices that cover [0, n): one slice in this thread, each other slice in a new thread.
// Returns when all are done. `work` must not throw, and its result must not depend on the slice boundaries. Uses fewer
// slices if a slice would be too small to justify a thread, or if the system cannot start another thread.
template <class Work>
void in_slices(size_t n, size_t threads, Work work) {
    constexpr size_t kMinItems = 2048;
    const size_t slices = std::max<size_t>(1, std::min(threads, n / kMinItems));
    const auto start_of = [&](size_t slice) { return n / slices * slice + std::min(slice, n % slices); };
    std::vector<std::thread> started;
    size_t next = 0;  // the first slice without a thread
    try {
        started.reserve(slices);
        for (; next + 1 < slices; ++next)
            started.emplace_back(work, start_of(next), start_of(next + 1));
    } catch (const std::system_error&) {
        // This thread processes the remaining slices.
    }
    work(start_of(next), n);
    for (std::thread& thread : started) thread.join();
}

}  // namespace springtide
