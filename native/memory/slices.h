// in_slices: a batch cut into as many even slices as there are threads, for work whose items do not touch each other.
#pragma once

#include <algorithm>
#include <cstddef>
#include <system_error>
#include <thread>
#include <vector>

namespace springtide {

// work(first, last) over [0, n): one slice in this thread, the others in threads of their own; returns when all is done.
// `work` must not throw, and its result must not depend on where slices end. Fewer slices where a thread would get too
// little to be worth starting, or the system has none to give.
template <class Work>
void in_slices(size_t n, size_t threads, Work work) {
    constexpr size_t kLeast = 2048;
    const size_t slices = std::max<size_t>(1, std::min(threads, n / kLeast));
    const auto start_of = [&](size_t slice) { return n / slices * slice + std::min(slice, n % slices); };
    std::vector<std::thread> started;
    size_t begun = 0;  // slices before this one belong to somebody
    try {
        started.reserve(slices);
        for (; begun + 1 < slices; ++begun)
            started.emplace_back(work, start_of(begun), start_of(begun + 1));
    } catch (const std::system_error&) {
        // The rest is done here.
    }
    work(start_of(begun), n);
    for (std::thread& thread : started) thread.join();
}

}  // namespace springtide
