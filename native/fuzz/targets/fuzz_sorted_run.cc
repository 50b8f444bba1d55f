// Arbitrary bytes as a block of a sorted run, with a valid checksum: what is read survives a round trip and a merge.
#include "runs/sorted_run.h"

#include <algorithm>
#include <stdexcept>
#include <vector>

#include "fuzz/input.h"
#include "keys/xxh64.h"

namespace {

constexpr size_t kWidth = 4;

using namespace springtide;

RunView view_of(const Run& run) { return {run.bytes, run.blocks}; }

Run copy_of(const RunView& run, size_t block_bytes) {
    RunWriter writer(block_bytes);
    for (RunReader reader(run); !reader.done(); reader.advance()) {
        if (reader.removed())
            writer.remove(reader.key());
        else
            std::copy(reader.value().begin(), reader.value().end(), writer.put(reader.key(), reader.value().size()));
    }
    return writer.finish();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
    Input input(bytes, size);
    const size_t block_bytes = 1 + input.take_size(5'000);
    Run run;
    run.bytes.assign(bytes, bytes + size);
    BlockEntry block{0, 0, static_cast<uint32_t>(size), 0, 0};
    if (size >= 12) {
        std::copy_n(bytes, 4, reinterpret_cast<uint8_t*>(&block.count));
        std::copy_n(bytes + 4, 8, reinterpret_cast<uint8_t*>(&block.first_key));
    }
    block.checksum = xxh64(bytes, size, block.first_key);
    run.blocks.push_back(block);
    try {
        const Run again = copy_of(view_of(run), block_bytes);
        const std::vector<uint64_t> keys = keys_of(view_of(again));
        std::vector<uint8_t> values(keys.size() * kWidth);
        std::vector<Entry> entries(keys.size());
        try {
            find_values(view_of(run), keys, kWidth, values.data(), entries.data());
            must(std::count(entries.begin(), entries.end(), Entry::kNone) == 0, "every key of a run is found");
        } catch (const std::invalid_argument&) {  // a value of another width
        }
        const RunView both[] = {view_of(run), view_of(again)};
        const Run merged = merge_runs(both, 0, ~uint64_t{0}, true, block_bytes, 0);
        must(merged.bytes == again.bytes, "a run merged with its copy is the copy");
    } catch (const std::invalid_argument&) {
    }
    return 0;
}
