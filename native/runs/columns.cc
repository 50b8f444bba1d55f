#include "runs/columns.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <stdexcept>
#include <string>

namespace springtide {

Run encode_run(const RunArrays& arrays, size_t block_bytes) {
    size_t fixed = 0;
    for (const Column& column : arrays.columns) fixed += column.width;
    RunWriter writer(block_bytes);
    size_t value_bytes = arrays.keys.size() * fixed;
    if (arrays.rest_bytes != nullptr)
        value_bytes = std::accumulate(arrays.rest_bytes, arrays.rest_bytes + arrays.keys.size(), value_bytes);
    writer.reserve(arrays.keys.size() + arrays.removed.size(), value_bytes);
    const uint8_t* rest = arrays.rest;
    size_t r = 0;
    const auto remove_below = [&](uint64_t limit) {
        for (; r < arrays.removed.size() && arrays.removed[r] < limit; ++r) writer.remove(arrays.removed[r]);
    };
    for (size_t i = 0; i < arrays.keys.size(); ++i) {
        remove_below(arrays.keys[i]);
        if (r < arrays.removed.size() && arrays.removed[r] == arrays.keys[i]) ++r;
        const size_t own = arrays.rest_bytes == nullptr ? 0 : arrays.rest_bytes[i];
        uint8_t* at = writer.put(arrays.keys[i], fixed + own);
        for (const Column& column : arrays.columns) {
            std::memcpy(at, column.rows + i * column.width, column.width);
            at += column.width;
        }
        if (own != 0) std::memcpy(at, rest, own);
        rest += own;
    }
    for (; r < arrays.removed.size(); ++r) writer.remove(arrays.removed[r]);
    return writer.finish();
}

DecodedRun decode_run(const RunView& run, std::span<const size_t> widths, bool with_rest) {
    size_t fixed = 0;
    for (const size_t width : widths) fixed += width;
    DecodedRun decoded;
    decoded.columns.resize(widths.size());
    size_t entries = 0;
    for (const BlockEntry& block : run.blocks) entries += block.count;
    // Counts that are wrong take no more memory than the blocks themselves.
    decoded.keys.reserve(std::min(entries, run.bytes.size() / sizeof(uint64_t)));
    for (size_t c = 0; c < widths.size(); ++c)
        decoded.columns[c].reserve(std::min(entries * widths[c], run.bytes.size()));
    for (RunReader reader(run); !reader.done(); reader.advance()) {
        if (reader.removed()) {
            decoded.removed.push_back(reader.key());
            continue;
        }
        const std::span<const uint8_t> value = reader.value();
        if (value.size() < fixed || (!with_rest && value.size() != fixed))
            throw std::invalid_argument("value of key " + std::to_string(reader.key()) + ": got " +
                                        std::to_string(value.size()) + " bytes, wanted " + std::to_string(fixed));
        decoded.keys.push_back(reader.key());
        const uint8_t* at = value.data();
        for (size_t c = 0; c < widths.size(); ++c) {
            decoded.columns[c].insert(decoded.columns[c].end(), at, at + widths[c]);
            at += widths[c];
        }
        if (!with_rest) continue;
        decoded.rest.insert(decoded.rest.end(), at, value.data() + value.size());
        decoded.rest_bytes.push_back(static_cast<uint32_t>(value.size() - fixed));
    }
    return decoded;
}

}  // namespace springtide
