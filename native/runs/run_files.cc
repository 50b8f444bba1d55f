#include "runs/run_files.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "runs/file_ranges.h"
#include "runs/key_filter.h"

namespace springtide {
namespace {

// The blocks that may hold `keys`, which ascend, without repetition.
std::vector<BlockEntry> blocks_for(std::span<const BlockEntry> blocks, std::span<const uint64_t> keys) {
    std::vector<BlockEntry> chosen;
    auto at = blocks.begin();
    for (const uint64_t key : keys) {
        const auto after = std::upper_bound(at, blocks.end(), key, [](uint64_t wanted, const BlockEntry& block) {
            return wanted < block.first_key;
        });
        if (after == blocks.begin()) continue;  // before the first key
        at = after - 1;
        if (chosen.empty() || chosen.back().first_key != at->first_key) chosen.push_back(*at);
    }
    return chosen;
}

void find_in_file(const RunFile& file, std::span<const uint64_t> keys, size_t width, uint8_t* values, Entry* entries) {
    const std::vector<BlockEntry> blocks = blocks_for(file.blocks, keys);
    std::vector<uint64_t> offsets;
    std::vector<uint32_t> lengths;
    size_t bytes = 0;
    for (const BlockEntry& block : blocks) {
        offsets.push_back(file.start + block.offset);
        lengths.push_back(block.bytes);
        bytes += block.bytes;
    }
    std::vector<uint8_t> content(bytes);
    read_ranges(file.descriptor, offsets, lengths, content.data());
    find_values({content, blocks}, keys, width, values, entries);
}

}  // namespace

void find_in_files(std::span<const RunFile> files, std::span<const uint64_t> keys, size_t width, uint8_t* values,
                   Entry* entries, uint32_t* file_of, uint32_t* reading) {
    std::fill_n(entries, keys.size(), Entry::kNone);
    std::vector<uint32_t> left(keys.size());
    for (uint32_t i = 0; i < left.size(); ++i) left[i] = i;
    std::vector<uint64_t> asked;
    std::vector<uint32_t> places;
    for (*reading = 0; *reading < files.size() && !left.empty(); ++*reading) {
        asked.clear();
        for (const uint32_t i : left) asked.push_back(keys[i]);
        std::vector<uint8_t> passed(asked.size());
        may_contain(files[*reading].filter, asked, passed.data());
        asked.clear();
        places.clear();
        for (size_t i = 0; i < left.size(); ++i) {
            if (!passed[i]) continue;
            asked.push_back(keys[left[i]]);
            places.push_back(left[i]);
        }
        if (asked.empty()) continue;
        std::vector<uint8_t> found(asked.size() * width);
        std::vector<Entry> states(asked.size());
        find_in_file(files[*reading], asked, width, found.data(), states.data());
        for (size_t i = 0; i < asked.size(); ++i) {
            if (states[i] == Entry::kNone) continue;
            entries[places[i]] = states[i];
            file_of[places[i]] = *reading;
            std::memcpy(values + places[i] * width, found.data() + i * width, width);
        }
        std::erase_if(left, [&](uint32_t i) { return entries[i] != Entry::kNone; });
    }
}

}  // namespace springtide
