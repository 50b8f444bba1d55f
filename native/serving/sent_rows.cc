#include "serving/sent_rows.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "quantizer/integers.h"
#include "quantizer/row_scale.h"
#include "table/fixed_dim.h"
#include "table/optimizers/dot.h"

namespace springtide {
namespace {

// Estimated bytes of coded rows (coded_rows.h): a mantissa of k significant bits takes about 2k + 3/4 bits.
constexpr float kHandleBytes = 1.5f, kExponentBytes = 0.5f, kKeyBytes = 7;
constexpr float kZeroBits = 0.75f, kSignificantBits = 2;

// The exponent of a float that is not finite is all ones. Only then is the expression before the subtraction zero, and
// the highest bit set after it.
bool all_finite(const float* row, size_t dim) {
    constexpr uint32_t kExponent = 0x7f800000;
    uint32_t bits = 0;
    for (size_t j = 0; j < dim; ++j) bits |= ((std::bit_cast<uint32_t>(row[j]) & kExponent) ^ kExponent) - 1;
    return bits >> 31 == 0;
}

// The exponent of the power of two nearest to sqrt(square), by ratio.
int nearest_root(double square) { return log2_of(2 * square) >> 1; }

float squared_distance(const float* a, const float* b, size_t dim) {
    return sum_of_blocks(dim, [&](size_t start, auto n) {
        float difference[kBlock];
        for (size_t j = 0; j < n; ++j) difference[j] = a[start + j] - b[start + j];
        return dot(difference, difference, n);
    });
}

// One row at a time: its grid, its payload and what the payload decodes to.
class RowEncoder {
public:
    explicit RowEncoder(const RowsToSend& input)
        : input_(input), payload_(integer_bytes(16, input.dim)), decoded_(input.dim) {}

    bool finite(size_t i) const { return all_finite(row(i), input_.dim); }

    void encode(size_t i) {
        const IntegerGrid served{input_.served_bits[i], input_.served_exponents[i]};
        const auto curvature = static_cast<double>(input_.curvature[i]);
        const int wanted = curvature > 0 ? nearest_root(input_.unit / curvature) : kMaxExponent;
        grid_ = grid_near(row(i), input_.dim, wanted, served);
        relative_ = served.bits == grid_.bits && served.exponent == grid_.exponent;
        write_integers(row(i), input_.dim, grid_.bits, grid_.exponent, payload_.data());
        read_integers(payload_.data(), input_.dim, grid_.bits, decoded_.data());
        moved_ = squared_distance(row(i), served_row(i), input_.dim);
        error_ = squared_distance(row(i), decoded_.data(), input_.dim);
    }

    // Of the row encoded last.
    unsigned bits() const { return grid_.bits; }
    bool improves() const { return error_ < moved_; }
    const std::vector<uint8_t>& payload() const { return payload_; }

    float worth(size_t i) const { return improves() ? loss(i, moved_ - error_) : 0; }
    float missing(size_t i) const { return loss(i, dot(row(i), row(i), input_.dim)); }
    float error(size_t i) const { return loss(i, moved_); }

    float cost_bytes(size_t i) const {
        const float inverse = power_of_two(-grid_.exponent);
        const float* const served = served_row(i);
        int significant = 0;
        for (size_t j = 0; j < input_.dim; ++j) {
            const float base = relative_ ? served[j] : 0.0f;
            const auto mantissa = static_cast<int32_t>((decoded_[j] - base) * inverse);
            significant += std::bit_width(static_cast<uint32_t>(mantissa < 0 ? -mantissa : mantissa));
        }
        const float bits = kSignificantBits * static_cast<float>(significant) + kZeroBits * static_cast<float>(input_.dim);
        const float key = input_.served_bits[i] == 0 ? kKeyBytes : 0;
        return kHandleBytes + key + (relative_ ? 0 : kExponentBytes) + bits / 8;
    }

private:
    float loss(size_t i, float square) const {
        constexpr float kMost = std::numeric_limits<float>::max();
        const float half = 0.5f * input_.curvature[i];
        return half > 0 ? std::min(half * std::min(square, kMost), kMost) : 0;
    }

    const float* row(size_t i) const { return input_.rows + i * input_.stride; }
    const float* served_row(size_t i) const { return input_.served + i * input_.dim; }

    const RowsToSend& input_;
    std::vector<uint8_t> payload_;
    std::vector<float> decoded_;
    IntegerGrid grid_{};
    bool relative_ = false;
    float moved_ = 0, error_ = 0;
};

}  // namespace

size_t score_rows(const RowsToSend& input, const ScoredRows& out) {
    RowEncoder encoder(input);
    for (size_t i = 0; i < input.n; ++i) {
        if (!encoder.finite(i)) return i;
        encoder.encode(i);
        out.improves[i] = encoder.improves();
        out.worth[i] = encoder.worth(i);
        out.cost_bytes[i] = encoder.cost_bytes(i);
        out.missing[i] = encoder.missing(i);
        out.error[i] = encoder.error(i);
    }
    return input.n;
}

size_t encode_sent(const RowsToSend& input, uint8_t* bits, std::vector<uint8_t>& payload) {
    RowEncoder encoder(input);
    payload.clear();
    for (size_t i = 0; i < input.n; ++i) {
        if (!encoder.finite(i)) return i;
        encoder.encode(i);
        const bool sent = encoder.improves() || input.served_bits[i] == 0;
        bits[i] = sent ? static_cast<uint8_t>(encoder.bits()) : 0;
        if (!sent) continue;
        const auto first = encoder.payload().begin();
        payload.insert(payload.end(), first, first + static_cast<long>(integer_bytes(encoder.bits(), input.dim)));
    }
    return input.n;
}

}  // namespace springtide
