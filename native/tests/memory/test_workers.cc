// Workers without Python: every piece once, whatever the number of threads; failures by the lowest piece. Run under the
// sanitizers.
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
            for (const int count : times) expect(count == 1, "each piece once");
        }
    }
}

void what_pieces_wrote_is_seen_when_run_returns() {
    springtide::Workers workers(4);
    std::vector<size_t> squares(64);
    for (int round = 0; round < 500; ++round) {
        workers.run(squares.size(), [&](size_t piece) { squares[piece] += piece; });
        for (size_t i = 0; i < squares.size(); ++i)
            expect(squares[i] == i * static_cast<size_t>(round + 1), "all pieces are done");
    }
}

void the_first_failure_by_piece_is_thrown_after_all_have_ended() {
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
            expect(std::string(failure.what()) == "1", "the lowest piece's");
        }
        expect(ended == 20, "the others run all the same");
    }
    workers.run(3, [](size_t) {});
}

}  // namespace

int main() {
    every_piece_runs_once();
    what_pieces_wrote_is_seen_when_run_returns();
    the_first_failure_by_piece_is_thrown_after_all_have_ended();
}
