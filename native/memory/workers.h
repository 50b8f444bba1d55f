// Workers: a few threads that share out independent pieces of work, for calls too short to start threads for.
//
// run() gives every piece to just one thread, in no order, and returns when all are done; the caller works too. Pieces
// must not depend on each other: then results do not depend on the number of threads. One run() at a time. The first
// exception of a piece, by the piece's number, is thrown by run() after all of them have ended.
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
    // `threads` >= 1, the caller's own counted.
    explicit Workers(size_t threads);
    ~Workers();

    Workers(const Workers&) = delete;
    Workers& operator=(const Workers&) = delete;

    // Calls piece(0) .. piece(n - 1).
    void run(size_t n, const std::function<void(size_t)>& piece);

private:
    void wait_for_work();
    void take_pieces(std::unique_lock<std::mutex>& lock);

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
