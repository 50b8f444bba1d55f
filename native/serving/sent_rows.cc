#include "serving/sent_rows.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "quantizer/quantizer.h"
#include "table/optimizers/dot.h"

namespace springtide {
namespace {

constexpr size_t kMaxBlockRows = 128;
constexpr size_t kBlockWeights = 8192;  // a block and its encodings fit the cache

size_t block_of(size_t dim) { return std::clamp(kBlockWeights / dim, size_t{1}, kMaxBlockRows); }

// The rows of a block, their payloads and the decoded payloads.
class EncodedBlock {
public:
    explicit EncodedBlock(size_t dim)
        : dim_(dim),
          rows_(block_of(dim) * dim),
          decoded_(block_of(dim) * dim),
          difference_(dim),
          payload_(block_of(dim) * payload_bytes(32, dim)) {}  // no payload is larger

    size_t size() const { return size_; }
    const float* row(size_t i) const { return rows_.data() + i * dim_; }
    unsigned bits(size_t i) const { return bits_[i]; }

    void clear() { size_ = 0; }

    // A row that keeps its precision may keep its exponent.
    void add(const float* row, uint8_t bits, uint8_t served_bits, int8_t served_exponent) {
        std::copy_n(row, dim_, rows_.data() + size_ * dim_);
        keeps_[size_] = bits == served_bits && is_integer_precision(bits);
        exponents_[size_] = served_exponent;
        bits_[size_++] = bits;
    }

    void encode() {
        offsets_[0] = 0;
        for (size_t i = 0; i < size_; ++i) {
            uint8_t* const payload = payload_.data() + offsets_[i];
            const float* const row = this->row(i);
            if (keeps_[i]) {
                const int exponent = kept_exponent(row, dim_, bits_[i], exponents_[i]);
                write_integers(row, dim_, bits_[i], exponent, payload);
            } else {
                encode_row(row, dim_, bits_[i], payload);
            }
            offsets_[i + 1] = offsets_[i] + static_cast<int64_t>(payload_bytes(bits_[i], dim_));
        }
    }

    // One call per run of rows with the same precision; most blocks have a single run.
    void decode() {
        for (size_t from = 0, to = 0; from < size_; from = to) {
            while (to < size_ && bits_[to] == bits_[from]) ++to;
            decode_rows(codec_of(bits_[from]), payload_.data() + offsets_[from], to - from, dim_,
                        decoded_.data() + from * dim_);
        }
    }

    // The distance of row i from `other`, and from its decoded payload.
    float distance_to(size_t i, const float* other) {
        const float* const row = this->row(i);
        for (size_t j = 0; j < dim_; ++j) difference_[j] = row[j] - other[j];
        return std::sqrt(dot(difference_.data(), difference_.data(), dim_));
    }
    float error(size_t i) { return distance_to(i, decoded_.data() + i * dim_); }

    void append(size_t i, std::vector<uint8_t>& payload) const {
        payload.insert(payload.end(), payload_.data() + offsets_[i], payload_.data() + offsets_[i + 1]);
    }

private:
    const size_t dim_;
    size_t size_ = 0;
    uint8_t bits_[kMaxBlockRows];
    int8_t exponents_[kMaxBlockRows];
    bool keeps_[kMaxBlockRows];
    int64_t offsets_[kMaxBlockRows + 1];
    std::vector<float> rows_, decoded_, difference_;
    std::vector<uint8_t> payload_;
};

bool all_zeros(const float* row, size_t dim) {
    return std::all_of(row, row + dim, [](float weight) { return weight == 0; });
}

// The exponent of a float that is not finite is all ones. Only then is the expression before the subtraction zero, and
// the highest bit set after it.
bool all_finite(const float* row, size_t dim) {
    constexpr uint32_t kExponent = 0x7f800000;
    uint32_t bits = 0;
    for (size_t j = 0; j < dim; ++j) bits |= ((std::bit_cast<uint32_t>(row[j]) & kExponent) ^ kExponent) - 1;
    return bits >> 31 == 0;
}

// Encodes each row of a block at the warranted precision, and rows not sent that way at the served precision.
class BlockEncoder {
public:
    BlockEncoder(const RowsToSend& input, float coarser_gain, uint8_t* chosen, std::vector<uint8_t>& payload)
        : input_(input),
          coarser_gain_(coarser_gain),
          chosen_(chosen),
          payload_(payload),
          warranted_(input.dim),
          retried_(input.dim) {}

    // Chooses the precision of rows [from, to) and appends the payloads of those sent. Returns false if a weight is not
    // finite.
    bool encode(size_t from, size_t to) {
        warranted_.clear();
        bool any_served = false;
        for (size_t i = from; i < to; ++i) {
            const float* const row = input_.rows + i * input_.stride;
            if (!all_finite(row, input_.dim)) return false;
            warranted_.add(row, input_.warranted[i], input_.served_bits[i], input_.served_exponents[i]);
            any_served |= input_.served_bits[i] != 0;
        }
        warranted_.encode();
        if (any_served) warranted_.decode();
        try_warranted(from);
        try_served_precision();
        write(from);
        return true;
    }

private:
    void try_warranted(size_t from) {
        retried_.clear();
        for (size_t i = 0; i < warranted_.size(); ++i) {
            const uint8_t served = input_.served_bits[from + i], bits = input_.warranted[from + i];
            is_retried_[i] = false;
            if (served == 0) {
                sent_[i] = !all_zeros(warranted_.row(i), input_.dim);
                continue;
            }
            const float distance = warranted_.distance_to(i, input_.served + (from + i) * input_.dim);
            sent_[i] = (bits < served ? coarser_gain_ : 1) * warranted_.error(i) < distance;
            if (sent_[i] || served <= bits) continue;
            distance_[retried_.size()] = distance;
            is_retried_[i] = true;
            retried_.add(warranted_.row(i), served, served, input_.served_exponents[from + i]);
        }
    }

    void try_served_precision() {
        if (retried_.size() == 0) return;
        retried_.encode();
        retried_.decode();
        for (size_t i = 0; i < retried_.size(); ++i) closer_[i] = retried_.error(i) < distance_[i];
    }

    void write(size_t from) {
        for (size_t i = 0, next = 0; i < warranted_.size(); ++i) {
            chosen_[from + i] = 0;
            if (sent_[i]) append(warranted_, i, from + i);
            if (is_retried_[i] && closer_[next]) append(retried_, next, from + i);
            next += is_retried_[i];
        }
    }

    void append(const EncodedBlock& block, size_t i, size_t row) {
        chosen_[row] = static_cast<uint8_t>(block.bits(i));
        block.append(i, payload_);
    }

    const RowsToSend& input_;
    const float coarser_gain_;
    uint8_t* const chosen_;
    std::vector<uint8_t>& payload_;
    EncodedBlock warranted_, retried_;
    bool sent_[kMaxBlockRows], is_retried_[kMaxBlockRows], closer_[kMaxBlockRows];
    float distance_[kMaxBlockRows];
};

size_t first_not_finite(const RowsToSend& input) {
    for (size_t i = 0; i < input.n; ++i)
        if (!all_finite(input.rows + i * input.stride, input.dim)) return i;
    return input.n;
}

}  // namespace

size_t encode_sent(const RowsToSend& input, float coarser_gain, uint8_t* chosen, std::vector<uint8_t>& payload) {
    BlockEncoder encoder(input, coarser_gain, chosen, payload);
    payload.clear();
    const size_t block = block_of(input.dim);
    for (size_t from = 0; from < input.n; from += block)
        if (!encoder.encode(from, std::min(from + block, input.n))) return first_not_finite(input);
    return input.n;
}

}  // namespace springtide
