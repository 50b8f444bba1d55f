// The cost of importance and convergence per row: a step of row-wise Adagrad on scattered rows, with and without the
// statistics that Table::update maintains. Compiled by the benchmark with the core's sources, called through ctypes.
#include <cstddef>
#include <cstdint>
#include <vector>

#include "table/optimizers/dot.h"
#include "table/fixed_dim.h"
#include "table/optimizers/optimizer.h"
#include "table/statistics.h"

namespace {

constexpr size_t kDim = 16, kAhead = 8;

struct alignas(64) Row {
    float weights[kDim];
    float state;
    springtide::Statistics statistics;
};

}  // namespace

extern "C" {

// One step of each of rows[which[i]], i < n, of a table of `size` rows.
void tracking_pass(const uint32_t* which, size_t n, size_t size, const float* gradients, int tracked) {
    static std::vector<Row> rows;
    if (rows.size() != size) rows.assign(size, Row{{0.1f}, 0.1f, {0, 1, 0.0f, 1.0f}});
    static const auto optimizer = springtide::make_optimizer("rowwise_adagrad", {.learning_rate = 0.05f});
    const springtide::StatisticsUpdater updater(86'400);
    for (size_t i = 0; i < n; ++i) {
        if (i + kAhead < n) {
            __builtin_prefetch(&rows[which[i + kAhead]]);
            __builtin_prefetch(reinterpret_cast<const char*>(&rows[which[i + kAhead]]) + 64);
        }
        Row& row = rows[which[i]];
        const float* gradient = gradients + i * kDim;
        springtide::UpdateNorms norms{};
        if (tracked)
            norms = springtide::with_dim(kDim, [&](auto dim) {
                return springtide::UpdateNorms{springtide::dot(gradient, row.weights, dim), springtide::dot(row.weights, row.weights, dim), 0};
            });
        norms.step_squared = optimizer->step(row.weights, &row.state, gradient, kDim);
        if (tracked) updater.apply(row.statistics, norms, 1, 2);
    }
}

}
