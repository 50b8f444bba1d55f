// Every concurrent use that the headers of the core allow, run concurrently: ThreadSanitizer detects races, the
// expectations check the results.
#include <algorithm>
#include <atomic>
#include <functional>
#include <thread>

#include "batch/pooling.h"
#include "batch/unique.h"
#include "join/join_index.h"
#include "keys/keys.h"
#include "quantizer/quantizer.h"
#include "serving/served_view.h"
#include "table/changes/row_flags.h"
#include "table/table.h"
#include "tests/expect.h"

namespace {

using springtide::ServedView;

void at_once(const std::vector<std::function<void()>>& calls) {
    std::vector<std::thread> threads;
    for (const auto& call : calls) threads.emplace_back(call);
    for (std::thread& thread : threads) thread.join();
}

// A served view whose writer puts and removes all rows in one batch each; readers must see complete batches.
struct Served {
    static constexpr size_t kRows = 200, kDim = 4;

    ServedView view{kDim, true};
    std::vector<uint64_t> keys = std::vector<uint64_t>(kRows);
    std::vector<uint32_t> handles = std::vector<uint32_t>(kRows);
    std::atomic<bool> done = false;

    Served() {
        for (size_t i = 0; i < kRows; ++i) keys[i] = 3 * i, handles[i] = static_cast<uint32_t>(i);
    }

    void write() {
        for (unsigned turn = 0; turn < 60; ++turn) {
            const unsigned precision = 4u << turn % 4;
            const std::vector<uint8_t> bits(kRows, static_cast<uint8_t>(precision));
            const std::vector<uint8_t> payload(kRows * springtide::payload_bytes(precision, kDim), 0);
            expect(view.put(keys.data(), handles.data(), bits.data(), payload.data(), kRows) == kRows, "put");
            if (turn % 3 == 0) expect(view.remove(keys.data(), kRows) == kRows, "remove");
            std::this_thread::yield();
        }
        done = true;
    }

    void read_rows() {
        std::vector<float> rows(kRows * kDim);
        std::vector<uint8_t> bits(kRows);
        while (!done) {
            view.decode(keys.data(), kRows, rows.data());
            for (const float weight : rows) expect(weight == 0, "a weight that was written");
            view.bits(keys.data(), kRows, bits.data());
            expect(std::ranges::count(bits, bits[0]) == kRows, "the same precision for all rows");
            std::this_thread::yield();
        }
    }

    void read_handles() {
        std::vector<uint64_t> found(kRows);
        std::vector<uint32_t> stored(kRows);
        bool known[kRows];
        while (!done) {
            view.keys_of(handles.data(), kRows, found.data(), known);
            expect(std::count(known, known + kRows, known[0]) == kRows, "all handles or none");
            view.handles(keys.data(), kRows, stored.data());
            const bool none = std::ranges::count(stored, ServedView::kNoHandle) == kRows;
            expect(stored == handles || none, "all handles or none");
            std::this_thread::yield();
        }
    }

    void export_all() {
        while (!done) {
            const ServedView::Exported rows = view.export_rows(keys.data(), kRows);
            size_t bytes = 0;
            for (const uint8_t bits : rows.bits) bytes += bits == 0 ? 0 : springtide::payload_bytes(bits, kDim);
            expect(rows.payload.size() == bytes, "payload sizes match the precisions");
            const size_t n = view.keys().size();
            expect(n == 0 || n == kRows, "all keys or none");
            (void)(view.digest() + view.size() + view.payload_total() + view.memory_bytes());
            std::this_thread::yield();
        }
    }
};

void a_served_view_has_readers_and_a_writer() {
    Served served;
    at_once({[&] { served.write(); }, [&] { served.read_rows(); }, [&] { served.read_handles(); },
             [&] { served.export_all(); }});
}

void a_join_index_is_matched_by_several_threads() {
    springtide::JoinIndex index;
    std::vector<uint64_t> ids(4000), places(2000), out(2000);
    for (size_t i = 0; i < places.size(); ++i) ids[2 * i] = i, ids[2 * i + 1] = ~i, places[i] = i;
    index.insert(ids.data(), places.data(), places.size(), out.data());
    const auto match = [&] {
        std::vector<uint64_t> found(places.size());
        for (int turn = 0; turn < 10; ++turn) index.match(ids.data(), places.size(), found.data());
        expect(found == places, "every place");
    };
    at_once({match, match, match});
}

void pure_functions_share_nothing() {
    std::vector<uint64_t> keys(3000);
    for (size_t i = 0; i < keys.size(); ++i) keys[i] = i * i % 700;
    std::vector<int64_t> offsets(101);
    for (size_t i = 0; i < offsets.size(); ++i) offsets[i] = static_cast<int64_t>(30 * i);
    const std::vector<float> row(16, 0.25f);
    const auto call = [&] {
        springtide::Uniquer uniquer;  // one per thread
        std::vector<uint64_t> distinct(keys.size());
        std::vector<int32_t> inverse(keys.size());
        std::vector<uint32_t> counts(keys.size());
        const size_t u = uniquer.unique(keys, distinct.data(), inverse.data(), counts.data());
        const size_t n = offsets.size() - 1;
        const std::vector<float> rows(u * 16, 0.5f);
        std::vector<float> pooled(n * 16), gradients(u * 16), decoded(16);
        const springtide::Pooling pooling{inverse, offsets, u, 16, {springtide::PoolingKind::kMean}};
        springtide::check(pooling, {16, 0});
        springtide::pool(pooling, rows.data(), pooled.data(), {16, 0});
        springtide::unpool(pooling, nullptr, pooled.data(), {16, 0}, gradients.data());
        expect(pooled[0] == 0.5f, "the mean of equal rows");
        std::vector<uint8_t> payload(springtide::payload_bytes(4, 16));
        springtide::encode_row(row.data(), 16, 4, payload.data());
        springtide::decode_row(payload.data(), 16, 4, decoded.data());
        expect(decoded == row, "a constant row");
        std::vector<uint64_t> combined(keys.size() / 2);
        springtide::combine(keys.data(), combined.size(), 2, 1, combined.data());
    };
    at_once({call, call, call});
}

void changes_are_finished_while_training_continues() {
    springtide::Table table(4, springtide::make_optimizer("adagrad", {0.1f, 0.1f}), {7, 0.5f}, 500);
    std::vector<uint64_t> keys(500);
    for (size_t i = 0; i < keys.size(); ++i) keys[i] = 7 * i;
    std::vector<uint32_t> rows(keys.size());
    table.admit(keys, rows.data(), 1);
    const uint64_t before = table.scan_digest();
    table.begin_changes();
    while (table.collect(100) > 0) {}
    const springtide::ChangeSet set = table.release_collected();
    springtide::Changes changes;
    const std::vector<float> gradients(keys.size() * 4, 0.5f);
    const std::vector<uint32_t> counts(keys.size(), 1);
    at_once({[&] { changes = springtide::finish(set); },
             [&] { table.update(keys, gradients.data(), counts.data(), 2); }});
    table.settle(changes.touched_sum);
    expect(changes.digest == before && changes.touched == keys, "the set is as of begin_changes()");
}

void flags_of_different_rows_are_set_concurrently() {
    springtide::RowFlags flags;
    flags.grow(1000);
    std::vector<std::function<void()>> calls;
    for (uint32_t part = 0; part < 3; ++part)
        calls.emplace_back([&flags, part] {
            for (uint32_t row = part; row < 999; row += 3) expect(flags.set(row), "a flag set once");
        });
    at_once(calls);
    for (uint32_t row = 0; row < 999; ++row) expect(flags.is_set(row), "every flag is set");
}

}  // namespace

int main() {
    a_served_view_has_readers_and_a_writer();
    a_join_index_is_matched_by_several_threads();
    pure_functions_share_nothing();
    changes_are_finished_while_training_continues();
    flags_of_different_rows_are_set_concurrently();
}
