// The served view without Python: compared with a map over random operations, and concurrent readers and a writer.
#include "serving/served_view.h"

#include <atomic>
#include <map>
#include <random>
#include <thread>

#include "keys/xxh64.h"
#include "quantizer/quantizer.h"
#include "tests/expect.h"

namespace {

using springtide::ServedView;

constexpr size_t kDim = 5;  // of the tests with threads

struct Row {
    uint32_t handle;
    uint8_t bits;
    std::vector<uint8_t> payload;
};

uint64_t digest_of(const std::map<uint64_t, Row>& model) {
    uint64_t sum = 0;
    for (const auto& [key, row] : model) {
        std::vector<uint8_t> bytes = {row.bits};
        bytes.insert(bytes.end(), row.payload.begin(), row.payload.end());
        sum += springtide::xxh64(bytes.data(), bytes.size(), key);
    }
    return sum;
}

void agrees_with_a_map(size_t dim, bool by_handle) {
    ServedView view(dim, by_handle);
    std::map<uint64_t, Row> model;
    std::mt19937_64 random(9);
    for (int step = 0; step < 5'000; ++step) {
        const uint64_t key = random() % 300;
        if (random() % 3 == 0) {
            expect(view.remove(&key, 1) == model.erase(key), "remove");
        } else {
            Row row{static_cast<uint32_t>(key + (random() % 2) * 1000), static_cast<uint8_t>(4u << random() % 4), {}};
            row.payload.resize(springtide::payload_bytes(row.bits, dim));
            for (uint8_t& byte : row.payload) byte = static_cast<uint8_t>(random());
            uint64_t predicted = 0;
            const size_t checked =
                view.digest_after(&key, &row.handle, &row.bits, row.payload.data(), 1, &key, 1, &predicted);
            expect(checked == 1, "no conflict");
            expect(view.put(&key, &row.handle, &row.bits, row.payload.data(), 1) == 1, "put");
            expect(view.digest() == predicted, "the predicted digest");
            model[key] = row;
        }
        expect(view.size() == model.size(), "size");
    }
    expect(view.digest() == digest_of(model), "digest");
    for (const auto& [key, row] : model) {
        const ServedView::Exported stored = view.export_rows(&key, 1);
        expect(stored.handles[0] == row.handle && stored.bits[0] == row.bits && stored.payload == row.payload, "row");
        uint64_t found;
        bool known;
        view.keys_of(&row.handle, 1, &found, &known);
        expect(known && found == key, "key of handle");
    }
}

void a_handle_of_another_key_is_rejected() {
    ServedView view(1, true);
    const std::vector<uint8_t> payload(8, 0), bits = {16, 16};
    const uint64_t first[2] = {1, 2}, second[2] = {3, 4};
    const uint32_t handles[2] = {0, 1}, used[2] = {5, 1}, twice[2] = {6, 6};
    expect(view.put(first, handles, bits.data(), payload.data(), 2) == 2, "put");
    const uint64_t before = view.digest();
    expect(view.put(second, used, bits.data(), payload.data(), 2) == 1, "a handle in use");
    expect(view.put(second, twice, bits.data(), payload.data(), 2) == 1, "a handle repeated in the batch");
    expect(view.size() == 2 && view.digest() == before, "nothing changed");
}

void readers_see_complete_batches() {
    ServedView view(kDim, true);
    constexpr size_t kRows = 500;
    std::vector<uint64_t> keys(kRows);
    std::vector<uint32_t> handles(kRows);
    for (size_t i = 0; i < kRows; ++i) keys[i] = handles[i] = static_cast<uint32_t>(i);
    const auto put = [&](float value, unsigned precision) {
        const std::vector<float> row(kDim, value);
        const std::vector<uint8_t> bits(kRows, static_cast<uint8_t>(precision));
        const size_t bytes = springtide::payload_bytes(precision, kDim);
        std::vector<uint8_t> payload(kRows * bytes);
        for (size_t i = 0; i < kRows; ++i)
            springtide::encode_row(row.data(), kDim, precision, payload.data() + i * bytes);
        expect(view.put(keys.data(), handles.data(), bits.data(), payload.data(), kRows) == kRows, "put");
    };
    put(0, 4);
    std::atomic<bool> done = false;
    const auto read = [&] {
        std::vector<float> rows(kRows * kDim);
        while (!done) {
            view.decode(keys.data(), kRows, rows.data());
            for (float weight : rows) expect(weight == rows[0], "a partial batch");
            std::this_thread::yield();
        }
    };
    std::thread one(read), two(read);
    for (int turn = 1; turn <= 100; ++turn) put(static_cast<float>(turn), 4u << turn % 4);
    done = true;
    one.join();
    two.join();
}

}  // namespace

int main() {
    for (const size_t dim : {1, 2, 5, 16})
        for (const bool by_handle : {true, false}) agrees_with_a_map(dim, by_handle);
    a_handle_of_another_key_is_rejected();
    readers_see_complete_batches();
}
