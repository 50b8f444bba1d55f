#include "memory/workers.h"

#include <pthread.h>

namespace springtide {

Workers::Workers(size_t threads) {
    for (size_t i = 1; i < threads; ++i) {
        threads_.emplace_back([this] { wait_for_work(); });
        pthread_setname_np(threads_.back().native_handle(), "rows");  // for profiles
    }
}

Workers::~Workers() {
    {
        const std::lock_guard lock(mutex_);
        closing_ = true;
    }
    begun_.notify_all();
    for (std::thread& thread : threads_) thread.join();
}

void Workers::run(size_t n, const std::function<void(size_t)>& piece) {
    std::unique_lock lock(mutex_);
    piece_ = &piece;
    pieces_ = unfinished_ = n;
    next_ = 0;
    failure_ = nullptr;
    begun_.notify_all();
    run_pieces(lock);
    ended_.wait(lock, [this] { return unfinished_ == 0; });
    if (failure_) std::rethrow_exception(failure_);
}

void Workers::wait_for_work() {
    std::unique_lock lock(mutex_);
    while (true) {
        begun_.wait(lock, [this] { return closing_ || next_ < pieces_; });
        if (closing_) return;
        run_pieces(lock);
    }
}

// The lock is held to assign a piece, not to run it: a piece takes tens of microseconds, the lock far less.
void Workers::run_pieces(std::unique_lock<std::mutex>& lock) {
    while (next_ < pieces_) {
        const size_t mine = next_++;
        const auto& piece = *piece_;
        lock.unlock();
        std::exception_ptr failure;
        try {
            piece(mine);
        } catch (const std::exception&) {
            failure = std::current_exception();
        }
        lock.lock();
        if (failure && (!failure_ || mine < failed_piece_)) failure_ = failure, failed_piece_ = mine;
        if (--unfinished_ == 0) ended_.notify_one();
    }
}

}  // namespace springtide
