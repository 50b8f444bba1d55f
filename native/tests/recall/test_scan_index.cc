// The scan index without Python: compared with scores of a map of items over random changes, for vectors that crowd
// buffers, tie, or reach the ends of the codes; and concurrent searches and changes.
#include "recall/scan/scan_index.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <map>
#include <random>
#include <thread>
#include <vector>

#include "tests/expect.h"

namespace {

using springtide::FoundItems;
using springtide::ScanIndex;
using springtide::ScoredItem;
using springtide::SearchOptions;

struct Item {
    std::vector<float> vector;
    uint64_t attributes;
};
using Items = std::map<uint64_t, Item>;
using Draw = float (*)(std::mt19937_64&);

struct Codes {
    std::vector<int> codes;
    float scale = 0;

    explicit Codes(const float* vector, size_t dim) : codes(dim) {
        float largest = 0;
        for (size_t i = 0; i < dim; ++i) largest = std::max(largest, std::abs(vector[i]));
        if (largest < 0x1p-40f) return;
        scale = largest / 32512;
        const float inverse = 32512 / largest;
        for (size_t i = 0; i < dim; ++i) codes[i] = static_cast<int>(std::nearbyint(vector[i] * inverse));
    }
};

float score_of(const Codes& query, const Codes& item) {
    int64_t product = 0;
    for (size_t i = 0; i < query.codes.size(); ++i) product += int64_t{query.codes[i]} * item.codes[i];
    return static_cast<float>(static_cast<double>(product) * item.scale * query.scale);
}

bool passes(const springtide::ItemFilter& filter, uint64_t attributes) {
    return (attributes & filter.all) == filter.all && (filter.any == 0 || (attributes & filter.any) != 0) &&
           (attributes & filter.none) == 0;
}

std::vector<ScoredItem> expected(const Items& items, const float* query, size_t dim, size_t k,
                                 const SearchOptions& options) {
    std::vector<ScoredItem> best;
    const Codes codes(query, dim);
    for (const auto& [id, item] : items)
        if (passes(options.filter, item.attributes) &&
            !std::binary_search(options.excluded.begin(), options.excluded.end(), id))
            best.push_back({score_of(codes, Codes(item.vector.data(), dim)), id});
    std::sort(best.begin(), best.end());
    best.resize(std::min(k, best.size()));
    return best;
}

void expect_found(const FoundItems& found, const std::vector<ScoredItem>& wanted) {
    expect(found.items.size() == wanted.size(), "as many items as may be found");
    for (size_t i = 0; i < wanted.size(); ++i)
        expect(found.items[i].id == wanted[i].id && found.items[i].score == wanted[i].score, "item");
}

// An index and the map that it must agree with; ids are below `most`.
class Trial {
public:
    Trial(size_t dim, size_t most, springtide::SampleRule rule, Draw draw)
        : dim_(dim), most_(most), draw_(draw), index_(dim, 3, rule), random_(dim + most) {}

    void change() {
        const uint64_t id = random_() % most_, attributes = random_() % 8;
        if (random_() % 4 == 0) {
            expect(index_.remove(&id, 1) == model_.erase(id), "remove");
            return;
        }
        model_[id] = {vectors(1), attributes};
        index_.put(&id, model_[id].vector.data(), &attributes, 1);
    }

    void compare() {
        expect(index_.size() == model_.size(), "size");
        const size_t n = 1 + random_() % 11;
        const std::vector<float> queries = vectors(n);
        const std::vector<uint64_t> excluded = {1, 5, 6, most_};
        std::vector<SearchOptions> options(n);
        for (SearchOptions& each : options) {
            if (random_() % 2 == 0) each.filter = {random_() % 4, random_() % 8, random_() % 2};
            if (random_() % 2 == 0) each.excluded = excluded;
        }
        for (const size_t k : {size_t{1}, size_t{10}, most_ / 3, most_ + 1}) {
            const auto found = index_.search(queries.data(), n, k, options.data());
            for (size_t q = 0; q < n; ++q)
                expect_found(found[q], expected(model_, queries.data() + q * dim_, dim_, k, options[q]));
        }
    }

private:
    std::vector<float> vectors(size_t n) {
        std::vector<float> drawn(n * dim_);
        for (float& component : drawn) component = draw_(random_);
        return drawn;
    }

    const size_t dim_, most_;
    const Draw draw_;
    ScanIndex index_;
    Items model_;
    std::mt19937_64 random_;
};

void agrees_with_a_map(size_t dim, size_t most, springtide::SampleRule rule, Draw draw) {
    Trial trial(dim, most, rule, draw);
    for (int round = 0; round < 6; ++round) {
        for (size_t i = 0; i < most; ++i) trial.change();
        trial.compare();
    }
}

float small_integer(std::mt19937_64& random) { return static_cast<float>(random() % 3) - 1; }
float end_of_range(std::mt19937_64& random) { return random() % 2 == 0 ? 127 : -127; }
float constant(std::mt19937_64&) { return 1; }
float ordinary(std::mt19937_64& random) { return std::normal_distribution<float>()(random); }
float any_magnitude(std::mt19937_64& random) {
    const auto exponent = static_cast<int>(random() % 90) - 50;  // also vectors that count as zero
    return std::ldexp(random() % 2 == 0 ? 1.5f : -1.25f, std::min(exponent, 39));
}

void threshold_that_is_too_high_is_lowered() {
    constexpr size_t kItems = 4096;
    std::vector<uint64_t> ids(kItems), attributes(kItems);
    std::vector<float> vectors(kItems);
    for (size_t i = 0; i < kItems; ++i) ids[i] = i, vectors[i] = static_cast<float>(i);
    size_t passes = 0;
    // Items that are alike lie in the same block: a sample that has one block of the best has many of them.
    ScanIndex index(1, 0, {1, 1});
    index.put(ids.data(), vectors.data(), attributes.data(), kItems);
    const float query = 1;
    const SearchOptions options;
    for (size_t k = 1; k < kItems / 16; ++k) {
        const auto found = index.search(&query, 1, k, &options);
        passes = std::max(passes, found[0].passes);
        for (size_t i = 0; i < k; ++i) expect(found[0].items[i].id == kItems - 1 - i, "descending");
    }
    expect(passes > 1, "a pass was repeated");
}

void vectors_that_are_not_codable_are_found() {
    const ScanIndex index(3, 0, {});
    const float vectors[] = {0, 0, 0, 0x1p40f, -0x1p40f, 1, 0, std::nextafter(0x1p40f, INFINITY), 0, NAN, 1, 1};
    expect(index.first_uncodable(vectors, 4) == 2, "beyond 2^40");
    expect(index.first_uncodable(vectors, 2) == 2, "none");
    expect(index.first_uncodable(vectors + 9, 1) == 0, "NaN");
    const float infinite[] = {0, 0, -INFINITY};
    expect(index.first_uncodable(infinite, 1) == 0, "infinite");
}

// Changes swap the vectors of even and odd items; every item found must have the score of one of its vectors.
void searches_and_changes_at_once() {
    constexpr size_t kItems = 3000, kDim = 16;
    ScanIndex index(kDim, 1, {});
    std::vector<uint64_t> ids(kItems), attributes(kItems);
    std::vector<float> states[2] = {std::vector<float>(kItems * kDim), std::vector<float>(kItems * kDim)};
    for (size_t i = 0; i < kItems; ++i) {
        ids[i] = i;
        states[0][i * kDim] = states[1][i * kDim + 1] = static_cast<float>(i + 1);
    }
    index.put(ids.data(), states[0].data(), attributes.data(), kItems);
    std::atomic<bool> done = false;
    const auto search = [&] {
        std::vector<float> query(kDim);
        query[0] = query[1] = 1;  // both vectors of an item have the same score
        const SearchOptions options;
        while (!done) {
            const auto found = index.search(query.data(), 1, 100, &options);
            expect(found[0].items.size() == 100, "all are found");
            for (size_t i = 0; i < 100; ++i) expect(found[0].items[i].id == kItems - 1 - i, "as without changes");
        }
    };
    const auto insert = [&] {
        std::vector<float> vector(kDim, -1);
        for (uint64_t id = kItems; !done; id = id == 9000 ? kItems : id + 1) {
            index.put(&id, vector.data(), attributes.data(), 1);
            const uint64_t other = kItems + (id + 4000) % 6000;
            index.remove(&other, 1);
        }
    };
    std::thread searches[] = {std::thread(search), std::thread(search)};
    std::thread inserts(insert);
    for (int i = 0; i < 40; ++i) index.put(ids.data(), states[i % 2].data(), attributes.data(), kItems);
    done = true;
    for (std::thread& thread : searches) thread.join();
    inserts.join();
    expect(index.size() >= kItems, "no item is lost");
}

}  // namespace

int main() {
    agrees_with_a_map(5, 300, {}, small_integer);
    agrees_with_a_map(16, 1100, {4, 1}, ordinary);
    agrees_with_a_map(33, 2500, {1, 2}, ordinary);
    agrees_with_a_map(64, 700, {2, 1}, end_of_range);
    agrees_with_a_map(17, 500, {2, 1}, constant);
    agrees_with_a_map(3, 400, {2, 1}, any_magnitude);
    agrees_with_a_map(512, 60, {}, end_of_range);
    threshold_that_is_too_high_is_lowered();
    vectors_that_are_not_codable_are_found();
    searches_and_changes_at_once();
}
