#include "serving/row_groups.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "keys/key_order.h"
#include "quantizer/quantizer.h"
#include "wire/gaps.h"

namespace springtide {
namespace {

constexpr uint64_t kNew = uint64_t{1} << 32;  // orders new rows after known ones

// The rows of one precision, in the order of the delta.
struct UnsortedGroup {
    std::vector<uint64_t> ranks;  // handle, with kNew for a new row
    std::vector<uint64_t> keys;   // 0 for a known row
    std::vector<const uint8_t*> payloads;
};

std::array<UnsortedGroup, 4> split_by_precision(const DeltaRows& rows) {
    std::array<UnsortedGroup, 4> groups;
    const uint8_t* payload = rows.payload;
    for (size_t i = 0; i < rows.known_count + rows.new_count; ++i) {
        UnsortedGroup& group = groups[static_cast<unsigned>(std::countr_zero(rows.bits[i])) - 2];
        const bool is_new = i >= rows.known_count;
        group.ranks.push_back(is_new ? kNew | rows.new_handles[i - rows.known_count] : rows.handles[i]);
        group.keys.push_back(is_new ? rows.new_keys[i - rows.known_count] : 0);
        group.payloads.push_back(payload);
        payload += payload_bytes(rows.bits[i], rows.dim);
    }
    return groups;
}

void append_handles(std::vector<uint64_t>& ranks, size_t from, size_t to, std::vector<uint8_t>& encoded) {
    for (size_t i = from; i < to; ++i) ranks[i] &= kNew - 1;
    encoded.reserve(to - from);
    append_gaps(ranks.data() + from, to - from, encoded);
}

RowGroup encode(unsigned bits, const UnsortedGroup& rows, size_t dim) {
    const size_t n = rows.ranks.size(), bytes = payload_bytes(bits, dim);
    const std::vector<uint32_t> order = ascending(rows.ranks);
    std::vector<uint64_t> ranks(n);
    RowGroup group{bits, {}, {}, {}, std::vector<uint8_t>(n * bytes)};
    for (size_t i = 0; i < n; ++i) {
        ranks[i] = rows.ranks[order[i]];
        std::memcpy(group.payload.data() + i * bytes, rows.payloads[order[i]], bytes);
    }
    const auto known = static_cast<size_t>(std::lower_bound(ranks.begin(), ranks.end(), kNew) - ranks.begin());
    group.new_keys.resize((n - known) * sizeof(uint64_t));
    for (size_t i = known; i < n; ++i)
        std::memcpy(group.new_keys.data() + (i - known) * sizeof(uint64_t), &rows.keys[order[i]], sizeof(uint64_t));
    append_handles(ranks, 0, known, group.known);
    append_handles(ranks, known, n, group.new_handles);
    return group;
}

}  // namespace

std::vector<RowGroup> group_rows(const DeltaRows& rows) {
    const auto unsorted = split_by_precision(rows);
    std::vector<RowGroup> groups;
    for (unsigned i = 0; i < unsorted.size(); ++i)
        if (!unsorted[i].ranks.empty()) groups.push_back(encode(4u << i, unsorted[i], rows.dim));
    return groups;
}

std::vector<uint8_t> reorder_payload(const uint8_t* payload, const uint8_t* bits, const int64_t* order, size_t n,
                                     size_t dim) {
    std::vector<size_t> starts(n + 1, 0);
    for (size_t i = 0; i < n; ++i) starts[i + 1] = starts[i] + payload_bytes(bits[i], dim);
    std::vector<uint8_t> reordered(starts[n]);
    uint8_t* at = reordered.data();
    for (size_t i = 0; i < n; ++i) {
        const auto row = static_cast<size_t>(order[i]);
        at = std::copy(payload + starts[row], payload + starts[row + 1], at);
    }
    return reordered;
}

}  // namespace springtide
