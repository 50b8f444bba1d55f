#include "table/optimizers/optimizer.h"

#include <stdexcept>
#include <string>

namespace springtide {
namespace {

struct Kind {
    std::string_view name;
    std::unique_ptr<Optimizer> (*make)(const OptimizerOptions&);
};

constexpr Kind kKinds[] = {{"sgd", make_sgd},   {"adagrad", make_adagrad}, {"rowwise_adagrad", make_rowwise_adagrad},
                           {"adam", make_adam}, {"ftrl", make_ftrl},       {"group_ftrl", make_group_ftrl}};

}  // namespace

std::unique_ptr<Optimizer> make_optimizer(std::string_view kind, const OptimizerOptions& options) {
    std::string known;
    for (const Kind& candidate : kKinds) {
        if (candidate.name == kind) return candidate.make(options);
        known += (known.empty() ? "" : ", ") + std::string(candidate.name);
    }
    throw std::invalid_argument("optimizer: got " + std::string(kind) + ", wanted one of " + known);
}

}  // namespace springtide
