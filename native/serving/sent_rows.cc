#include "serving/sent_rows.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "table/optimizers/dot.h"
#include "quantizer/quantizer.h"

namespace springtide {
namespace {

constexpr size_t kMostBlock = 128;      // rows
constexpr size_t kBlockWeights = 8192;  // so that a block and its tries fit the cache

size_t block_of(size_t dim) { return std::clamp(kBlockWeights / dim, size_t{1}, kMostBlock); }

// Of one weight, 8 bits take the most room: four bytes of grid before the code.
size_t most_payload_bytes(size_t dim) { return std::max(payload_bytes(8, dim), payload_bytes(32, dim)); }

// A block's rows, encoded and read back.
class Tried {
public:
    explicit Tried(size_t dim)
        : dim_(dim),
          rows_(block_of(dim) * dim),
          back_(block_of(dim) * dim),
          apart_(dim),
          payload_(block_of(dim) * most_payload_bytes(dim)) {}

    size_t size() const { return size_; }
    const float* row(size_t i) const { return rows_.data() + i * dim_; }
    unsigned bits(size_t i) const { return bits_[i]; }

    void clear() { size_ = 0; }

    void add(const float* row, uint8_t bits) {
        std::copy_n(row, dim_, rows_.data() + size_ * dim_);
        bits_[size_++] = bits;
    }

    void encode() {
        offsets_[0] = 0;
        for (size_t i = 0; i < size_; ++i)
            offsets_[i + 1] = offsets_[i] + static_cast<int64_t>(payload_bytes(bits_[i], dim_));
        encode_mixed(rows_.data(), size_, dim_, bits_, offsets_, payload_.data());
    }

    // Neighbours of one precision at once: nearly all have the same.
    void read_back() {
        for (size_t from = 0, to = 0; from < size_; from = to) {
            while (to < size_ && bits_[to] == bits_[from]) ++to;
            decode_rows(codec_of(bits_[from]), payload_.data() + offsets_[from], to - from, dim_, back_.data() + from * dim_);
        }
    }

    // How far row i is from `other`, and from what its payload came back as.
    float distance_to(size_t i, const float* other) {
        const float* const row = this->row(i);
        for (size_t j = 0; j < dim_; ++j) apart_[j] = row[j] - other[j];
        return std::sqrt(dot(apart_.data(), apart_.data(), dim_));
    }
    float error(size_t i) { return distance_to(i, back_.data() + i * dim_); }

    void append(size_t i, std::vector<uint8_t>& payload) const {
        payload.insert(payload.end(), payload_.data() + offsets_[i], payload_.data() + offsets_[i + 1]);
    }

private:
    const size_t dim_;
    size_t size_ = 0;
    uint8_t bits_[kMostBlock];
    int64_t offsets_[kMostBlock + 1];
    std::vector<float> rows_, back_, apart_;
    std::vector<uint8_t> payload_;
};

bool all_zeros(const float* row, size_t dim) {
    return std::all_of(row, row + dim, [](float weight) { return weight == 0; });
}

// The exponent of what is not finite is all ones; only then is what is left of it zero, and one less has the upper bit.
bool all_finite(const float* row, size_t dim) {
    constexpr uint32_t kExponent = 0x7f800000;
    uint32_t found = 0;
    for (size_t j = 0; j < dim; ++j) found |= ((std::bit_cast<uint32_t>(row[j]) & kExponent) ^ kExponent) - 1;
    return found >> 31 == 0;
}

class Sender {
public:
    Sender(const RowsToSend& input, float coarser_gain, uint8_t* chosen, std::vector<uint8_t>& payload)
        : input_(input),
          coarser_gain_(coarser_gain),
          chosen_(chosen),
          payload_(payload),
          first_(input.dim),
          second_(input.dim) {}

    // Appends rows from..to as far as they are sent; returns whether all are finite.
    bool send(size_t from, size_t to) {
        first_.clear();
        bool known = false;
        for (size_t i = from; i < to; ++i) {
            const float* const row = input_.rows + i * input_.stride;
            if (!all_finite(row, input_.dim)) return false;
            first_.add(row, input_.warranted[i]);
            known |= input_.served_bits[i] != 0;
        }
        first_.encode();
        if (known) first_.read_back();
        try_first(from);
        try_second();
        write(from);
        return true;
    }

private:
    void try_first(size_t from) {
        second_.clear();
        for (size_t i = 0; i < first_.size(); ++i) {
            const uint8_t served = input_.served_bits[from + i], bits = input_.warranted[from + i];
            again_[i] = false;
            if (served == 0) {
                sent_[i] = !all_zeros(first_.row(i), input_.dim);
                continue;
            }
            const float behind = first_.distance_to(i, input_.served + (from + i) * input_.dim);
            sent_[i] = (bits < served ? coarser_gain_ : 1) * first_.error(i) < behind;
            if (sent_[i] || served <= bits) continue;
            behind_[second_.size()] = behind;
            again_[i] = true;
            second_.add(first_.row(i), served);
        }
    }

    void try_second() {
        if (second_.size() == 0) return;
        second_.encode();
        second_.read_back();
        for (size_t i = 0; i < second_.size(); ++i) closer_[i] = second_.error(i) < behind_[i];
    }

    void write(size_t from) {
        for (size_t i = 0, tried = 0; i < first_.size(); ++i) {
            chosen_[from + i] = 0;
            if (sent_[i]) take(first_, i, from + i);
            if (again_[i] && closer_[tried]) take(second_, tried, from + i);
            tried += again_[i];
        }
    }

    void take(const Tried& tried, size_t i, size_t row) {
        chosen_[row] = static_cast<uint8_t>(tried.bits(i));
        tried.append(i, payload_);
    }

    const RowsToSend& input_;
    const float coarser_gain_;
    uint8_t* const chosen_;
    std::vector<uint8_t>& payload_;
    Tried first_, second_;
    bool sent_[kMostBlock], again_[kMostBlock], closer_[kMostBlock];
    float behind_[kMostBlock];
};

size_t first_not_finite(const RowsToSend& input) {
    for (size_t i = 0; i < input.n; ++i)
        if (!all_finite(input.rows + i * input.stride, input.dim)) return i;
    return input.n;
}

}  // namespace

size_t encode_sent(const RowsToSend& input, float coarser_gain, uint8_t* chosen, std::vector<uint8_t>& payload) {
    Sender sender(input, coarser_gain, chosen, payload);
    payload.clear();
    const size_t block = block_of(input.dim);
    for (size_t from = 0; from < input.n; from += block)
        if (!sender.send(from, std::min(from + block, input.n))) return first_not_finite(input);
    return input.n;
}

}  // namespace springtide
