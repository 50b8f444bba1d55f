// Sorted runs without Python: merged runs are a map updated by each of them, and damaged blocks are rejected.
#include "runs/sorted_run.h"

#include <map>
#include <optional>
#include <random>

#include "keys/xxh64.h"
#include "tests/expect.h"

namespace {

using namespace springtide;

using Changes = std::map<uint64_t, std::optional<std::vector<uint8_t>>>;

Changes random_changes(std::mt19937_64& random) {
    Changes changes;
    for (size_t n = random() % 300; n > 0; --n) {
        std::optional<std::vector<uint8_t>> value;
        if (random() % 4 != 0) value.emplace(random() % 50, static_cast<uint8_t>(random()));
        changes[random() % 500] = value;
    }
    return changes;
}

Run run_of(const Changes& changes, size_t block_bytes) {
    RunWriter writer(block_bytes);
    for (const auto& [key, value] : changes) {
        if (value)
            std::copy(value->begin(), value->end(), writer.put(key, value->size()));
        else
            writer.remove(key);
    }
    return writer.finish();
}

RunView view_of(const Run& run) { return {run.bytes, run.blocks}; }

Changes changes_in(const Run& run) {
    Changes changes;
    for (RunReader reader(view_of(run)); !reader.done(); reader.advance()) {
        std::optional<std::vector<uint8_t>> value;
        if (!reader.removed()) value.emplace(reader.value().begin(), reader.value().end());
        changes[reader.key()] = value;
    }
    return changes;
}

void merged_runs_are_a_map_updated_by_each() {
    std::mt19937_64 random(1);
    for (int round = 0; round < 200; ++round) {
        std::vector<Run> runs;
        Changes expected;
        for (size_t n = random() % 6; n > 0; --n) {
            const Changes changes = random_changes(random);
            runs.push_back(run_of(changes, 1 + random() % 600));
            expect(changes_in(runs.back()) == changes, "the same entries");
            for (const auto& [key, value] : changes) expected[key] = value;
        }
        std::vector<RunView> views;
        for (const Run& run : runs) views.push_back(view_of(run));
        expect(changes_in(merge_runs(views, 0, ~uint64_t{0}, true, 512, 0)) == expected, "the newest decides");
        const uint64_t first = random() % 500, last = first + random() % 100;
        Changes part;
        for (const auto& [key, value] : expected)
            if (value && key >= first && key <= last) part[key] = value;
        expect(changes_in(merge_runs(views, first, last, false, 512, 9)) == part, "a range without removals");
    }
}

// A valid checksum does not make a block valid.
void sealed_blocks_with_any_contents_are_read_or_rejected() {
    std::mt19937_64 random(2);
    size_t rejected = 0;
    for (int round = 0; round < 3'000; ++round) {
        Run run = run_of(random_changes(random), 200);
        if (run.blocks.empty()) continue;
        BlockEntry& block = run.blocks[random() % run.blocks.size()];
        for (size_t n = 1 + random() % 3; n > 0; --n)
            run.bytes[block.offset + random() % block.bytes] = static_cast<uint8_t>(random());
        if (random() % 4 == 0) block.count = static_cast<uint32_t>(random() % 40);
        block.checksum = xxh64(run.bytes.data() + block.offset, block.bytes, block.first_key);
        try {
            changes_in(run);
        } catch (const std::invalid_argument&) {
            ++rejected;
        }
    }
    expect(rejected > 500, "invalid blocks are rejected");
}

void a_block_that_is_cut_off_is_rejected() {
    Run run = run_of({{1, std::vector<uint8_t>(40)}, {2, std::nullopt}}, 4096);
    for (size_t bytes = 0; bytes < run.bytes.size(); ++bytes) {
        const std::vector<uint8_t> part(run.bytes.begin(), run.bytes.begin() + static_cast<long>(bytes));
        expect_rejected([&] { RunReader({part, run.blocks}); }, "a block that is cut off");
    }
}

}  // namespace

int main() {
    merged_runs_are_a_map_updated_by_each();
    sealed_blocks_with_any_contents_are_read_or_rejected();
    a_block_that_is_cut_off_is_rejected();
}
