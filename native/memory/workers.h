// Workers: a thread pool for independent pieces of work that are too short to start threads for.
//
// run() executes each piece exactly once, in no particular order, and returns when all are done; the calling thread
// works too. Pieces must be independent: then results do not depend on the number of threads. One run() at a time. If
// pieces throw, run() rethrows the exception of the lowest-numbered one after all pieces have ended.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace springtide {

class Workers {
public:
    // `threads` >= 1 includes the calling thread.
    explicit Workers(size_t threads);
    ~Workers();

    Workers(const Workers&) = delete;
    Workers& operator=(const Workers&) = delete;

    // Calls piece(0) .. piece(n - 1).
    void run(size_t n, const std::function<void(size_t)>& piece);

private:
    void wait_for_work();
    void run_pieces(std::unique_lock<std::mutex>& lock);

    std::mutex mutex_;
    std::condition_variable begun_, ended_;
    const std::function<void(size_t)>* piece_ = nullptr;
    size_t pieces_ = 0, next_ = 0, unfinished_ = 0;
    size_t failed_piece_ = 0;
    std::exception_ptr failure_;
    bool closing_ = false;
    std::vector<std::thread> threads_;
};

}  // namespace springtide
