// Workers without Python: every piece runs once with any number of threads; the lowest-numbered failure is thrown. Run
// under the sanitizers.
#include "memory/workers.h"

#include <atomic>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/expect.h"

namespace {

void every_piece_runs_once() {
    for (const size_t threads : {1, 2, 5}) {
        springtide::Workers workers(threads);
        for (size_t n = 0; n < 200; ++n) {
            std::vector<int> times(n);
            workers.run(n, [&](size_t piece) { ++times[piece]; });
            for (const int count : times) expect(count == 1, "each piece runs once");
        }
    }
}

void writes_of_pieces_are_visible_when_run_returns() {
    springtide::Workers workers(4);
    std::vector<size_t> squares(64);
    for (int round = 0; round < 500; ++round) {
        workers.run(squares.size(), [&](size_t piece) { squares[piece] += piece; });
        for (size_t i = 0; i < squares.size(); ++i)
            expect(squares[i] == i * static_cast<size_t>(round + 1), "all pieces are done");
    }
}

void the_failure_of_the_lowest_piece_is_thrown_after_all_have_ended() {
    springtide::Workers workers(3);
    std::atomic<int> ended = 0;
    for (int round = 0; round < 100; ++round) {
        ended = 0;
        try {
            workers.run(20, [&](size_t piece) {
                ++ended;
                if (piece % 2 == 1) throw std::invalid_argument(std::to_string(piece));
            });
            expect(false, "a failure is thrown");
        } catch (const std::invalid_argument& failure) {
            expect(std::string(failure.what()) == "1", "the failure of the lowest piece");
        }
        expect(ended == 20, "the other pieces still run");
    }
    workers.run(3, [](size_t) {});
}

}  // namespace

int main() {
    every_piece_runs_once();
    writes_of_pieces_are_visible_when_run_returns();
    the_failure_of_the_lowest_piece_is_thrown_after_all_have_ended();
}
