#include "recall/tree/clusters.h"

#include <algorithm>
#include <cmath>

namespace springtide {
namespace {

constexpr size_t kSample = 1024;
constexpr int kIterations = 4;
constexpr size_t kLanes = 8;

// Sums in a fixed order of eight lanes, so that compilers may use vectors of any width.
template <class Term>
float sum(size_t dim, Term term) {
    float lanes[kLanes] = {};
    size_t i = 0;
    for (; i + kLanes <= dim; i += kLanes)
        for (size_t lane = 0; lane < kLanes; ++lane) lanes[lane] += term(i + lane);
    for (size_t lane = 0; i < dim; ++i, ++lane) lanes[lane] += term(i);
    return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

float product(const float* a, const float* b, size_t dim) {
    return sum(dim, [=](size_t i) { return a[i] * b[i]; });
}

// Makes the largest component 1, so that powers of it neither overflow nor vanish; false for a vector of zeros.
bool scaled(std::vector<float>& vector) {
    float largest = 0;
    for (const float x : vector) largest = std::max(largest, std::abs(x));
    if (largest == 0) return false;
    for (float& x : vector) x /= largest;
    return true;
}

// [sample, dim]: some vectors of the range less their mean, in units of the largest component.
std::vector<float> centred(const VectorRows& vectors, std::span<const uint32_t> places) {
    const size_t count = std::min(kSample, places.size()), dim = vectors.dim;
    std::vector<uint32_t> chosen(count);
    for (size_t i = 0; i < count; ++i) chosen[i] = places[i * places.size() / count];
    std::vector<float> mean(dim), found(count * dim);
    mean_of(vectors, chosen, mean.data());
    for (size_t i = 0; i < count; ++i)
        for (size_t d = 0; d < dim; ++d) found[i * dim + d] = vectors[chosen[i]][d] - mean[d];
    scaled(found);
    return found;
}

// The direction of the largest variance; zeros if all vectors are equal.
std::vector<float> direction(const VectorRows& vectors, std::span<const uint32_t> places) {
    const size_t dim = vectors.dim;
    const std::vector<float> rows = centred(vectors, places);
    const auto row = [&](size_t i) { return rows.data() + i * dim; };
    const size_t count = rows.size() / dim;
    size_t farthest = 0;
    for (size_t i = 1; i < count; ++i)
        if (product(row(i), row(i), dim) > product(row(farthest), row(farthest), dim)) farthest = i;
    std::vector<float> found(row(farthest), row(farthest) + dim);
    for (int iteration = 0; iteration < kIterations && scaled(found); ++iteration) {
        std::vector<float> next(dim);
        for (size_t i = 0; i < count; ++i) {
            const float length = product(row(i), found.data(), dim);
            for (size_t d = 0; d < dim; ++d) next[d] += length * row(i)[d];
        }
        found = next;
    }
    scaled(found);
    return found;
}

// Orders places so that the first `left` have the smallest products with the direction.
void halve(const VectorRows& vectors, std::span<uint32_t> places, size_t left) {
    struct Projected {
        float length;
        uint32_t place;
        bool operator<(const Projected& other) const {
            return length < other.length || (length == other.length && place < other.place);
        }
    };
    const std::vector<float> along = direction(vectors, places);
    std::vector<Projected> projected(places.size());
    for (size_t i = 0; i < places.size(); ++i)
        projected[i] = {product(vectors[places[i]], along.data(), vectors.dim), places[i]};
    std::nth_element(projected.begin(), projected.begin() + static_cast<std::ptrdiff_t>(left), projected.end());
    // By place within each half: the order must not depend on how the library selects.
    const auto by_place = [](const Projected& a, const Projected& b) { return a.place < b.place; };
    std::sort(projected.begin(), projected.begin() + static_cast<std::ptrdiff_t>(left), by_place);
    std::sort(projected.begin() + static_cast<std::ptrdiff_t>(left), projected.end(), by_place);
    for (size_t i = 0; i < places.size(); ++i) places[i] = projected[i].place;
}

}  // namespace

void cluster(const VectorRows& vectors, std::span<uint32_t> places, size_t count, size_t first,
             std::vector<size_t>& ends) {
    if (count == 1) {
        ends.push_back(first + places.size());
        return;
    }
    const size_t clusters = count / 2, left = places.size() * clusters / count;
    if (left > 0 && left < places.size()) halve(vectors, places, left);
    cluster(vectors, places.first(left), clusters, first, ends);
    cluster(vectors, places.subspan(left), count - clusters, first + left, ends);
}

float squared_distance(const float* a, const float* b, size_t dim) {
    return sum(dim, [=](size_t i) { return (a[i] - b[i]) * (a[i] - b[i]); });
}

void mean_of(const VectorRows& vectors, std::span<const uint32_t> places, float* out) {
    std::vector<double> sums(vectors.dim);
    for (const uint32_t place : places)
        for (size_t d = 0; d < sums.size(); ++d) sums[d] += vectors[place][d];
    for (size_t d = 0; d < sums.size(); ++d)
        out[d] = places.empty() ? 0.0f : static_cast<float>(sums[d] / static_cast<double>(places.size()));
}

}  // namespace springtide
