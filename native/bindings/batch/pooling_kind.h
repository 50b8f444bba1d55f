// The kinds of pooling by the names that the configuration gives them.
#pragma once

#include <stdexcept>
#include <string>

#include "batch/pooling.h"

inline springtide::PoolingKind pooling_kind(const std::string& name) {
    using springtide::PoolingKind;
    if (name == "sum") return PoolingKind::kSum;
    if (name == "mean") return PoolingKind::kMean;
    if (name == "sqrtn") return PoolingKind::kSqrtN;
    if (name == "max") return PoolingKind::kMax;
    if (name == "none") return PoolingKind::kNone;
    throw std::invalid_argument("pooling: got " + name + ", wanted sum, mean, sqrtn, max or none");
}
