#include "optimizer.h"

#include <stdexcept>
#include <string>

namespace freshet {

std::unique_ptr<Optimizer> make_optimizer(std::string_view kind, const OptimizerOptions& options) {
    if (kind == "adagrad") return make_adagrad(options);
    if (kind == "rowwise_adagrad") return make_rowwise_adagrad(options);
    throw std::invalid_argument("optimizer: got " + std::string(kind) + ", wanted adagrad or rowwise_adagrad");
}

}  // namespace freshet
