// Encoding of rows to be sent, without Python: a batch gives the same output as its rows one by one.
#include "serving/sent_rows.h"

#include <cmath>
#include <limits>
#include <random>

#include "quantizer/quantizer.h"
#include "tests/expect.h"

namespace {

constexpr uint8_t kServed[] = {0, 4, 8, 16, 32};
constexpr double kUnit = 1e-3;

struct Batch {
    size_t n, dim, stride;
    std::vector<float> rows, served;
    std::vector<uint8_t> served_bits;
    std::vector<int8_t> exponents;
    std::vector<float> curvature;

    Batch(size_t count, size_t width, uint64_t seed)
        : n(count),
          dim(width),
          stride(width + 3),
          rows(n * stride),
          served(n * dim),
          served_bits(n),
          exponents(n),
          curvature(n) {
        std::mt19937_64 random(seed);
        std::normal_distribution<float> weight(0, 0.05f);
        for (float& each : rows) each = weight(random);
        for (size_t i = 0; i < n; ++i) {
            served_bits[i] = kServed[random() % 5];
            exponents[i] = static_cast<int8_t>(-12 + static_cast<int>(random() % 8));
            curvature[i] = std::pow(10.0f, static_cast<float>(random() % 8));
            const float distance = std::pow(10.0f, -static_cast<float>(random() % 7));
            for (size_t j = 0; j < dim; ++j) served[i * dim + j] = rows[i * stride + j] * (1 + distance);
        }
    }

    springtide::RowsToSend from(size_t i, size_t count) const {
        return {rows.data() + i * stride, stride, served.data() + i * dim, served_bits.data() + i,
                exponents.data() + i, curvature.data() + i, kUnit, count, dim};
    }
};

void a_batch_agrees_with_single_rows(size_t dim) {
    const Batch batch(300, dim, dim);
    std::vector<uint8_t> chosen(batch.n), payload;
    expect(springtide::encode_sent(batch.from(0, batch.n), chosen.data(), payload) == batch.n, "finite");
    size_t at = 0;
    for (size_t i = 0; i < batch.n; ++i) {
        uint8_t bits;
        std::vector<uint8_t> row;
        expect(springtide::encode_sent(batch.from(i, 1), &bits, row) == 1, "finite");
        expect(bits == chosen[i] && row.size() == (bits ? springtide::payload_bytes(bits, dim) : 0), "bits");
        expect(at + row.size() <= payload.size(), "size");
        expect(std::equal(row.begin(), row.end(), payload.begin() + static_cast<long>(at)), "row");
        at += row.size();
    }
    expect(at == payload.size(), "total size");
}

void scores_agree_with_what_is_sent(size_t dim) {
    const Batch batch(300, dim, dim + 1);
    std::vector<uint8_t> chosen(batch.n), payload;
    expect(springtide::encode_sent(batch.from(0, batch.n), chosen.data(), payload) == batch.n, "finite");
    for (size_t i = 0; i < batch.n; ++i) {
        bool improves;
        float worth, cost_bytes, missing, error;
        expect(springtide::score_rows(batch.from(i, 1), {&improves, &worth, &cost_bytes, &missing, &error}) == 1,
               "finite");
        expect(improves ? worth >= 0 && worth <= error : worth == 0, "worth");
        expect((chosen[i] != 0) == (improves || batch.served_bits[i] == 0), "sent");
        expect(missing >= 0 && cost_bytes > 0, "cost");
    }
}

void returns_the_first_row_that_is_not_finite() {
    Batch batch(300, 5, 1);
    std::vector<uint8_t> chosen(batch.n), payload;
    batch.rows[140 * batch.stride + 4] = std::numeric_limits<float>::infinity();
    batch.rows[135 * batch.stride + 5] = std::numeric_limits<float>::quiet_NaN();  // between rows
    expect(springtide::encode_sent(batch.from(0, batch.n), chosen.data(), payload) == 140, "row 140");
}

}  // namespace

int main() {
    for (const size_t dim : {1, 2, 3, 7, 16, 65, 2'000, 20'000}) {
        a_batch_agrees_with_single_rows(dim);
        scores_agree_with_what_is_sent(dim);
    }
    returns_the_first_row_that_is_not_finite();
}
