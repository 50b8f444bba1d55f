// Roundings by number, in the order of quantizer/rounding.h.
#pragma once

#include <stdexcept>
#include <string>

#include "quantizer/rounding.h"

inline springtide::Rounding rounding_of(unsigned number) {
    if (number >= springtide::kRoundings)
        throw std::invalid_argument("rounding: got " + std::to_string(number) + ", wanted 0 to " +
                                    std::to_string(springtide::kRoundings) + " - 1");
    return static_cast<springtide::Rounding>(number);
}
