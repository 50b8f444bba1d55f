#include "serving/row_groups.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "wire/gaps.h"
#include "batch/key_order.h"
#include "quantizer/quantizer.h"

namespace springtide {
namespace {

constexpr uint64_t kNew = uint64_t{1} << 32;  // what puts a row behind all that serving knows

// Rows of one precision, as they come.
struct Gathered {
    std::vector<uint64_t> ranks;  // kNew and handle
    std::vector<uint64_t> keys;   // 0 where the row is known
    std::vector<const uint8_t*> payloads;
};

std::array<Gathered, 4> gather(const DeltaRows& rows) {
    std::array<Gathered, 4> gathered;
    const uint8_t* payload = rows.payload;
    for (size_t i = 0; i < rows.known + rows.fresh; ++i) {
        Gathered& group = gathered[static_cast<unsigned>(std::countr_zero(rows.bits[i])) - 2];
        const bool fresh = i >= rows.known;
        group.ranks.push_back(fresh ? kNew | rows.new_handles[i - rows.known] : rows.handles[i]);
        group.keys.push_back(fresh ? rows.new_keys[i - rows.known] : 0);
        group.payloads.push_back(payload);
        payload += payload_bytes(rows.bits[i], rows.dim);
    }
    return gathered;
}

void append_handles(std::vector<uint64_t>& ranks, size_t from, size_t to, std::vector<uint8_t>& spelled) {
    for (size_t i = from; i < to; ++i) ranks[i] &= kNew - 1;
    spelled.reserve(to - from);
    append_gaps(ranks.data() + from, to - from, spelled);
}

RowGroup spell(unsigned bits, const Gathered& rows, size_t dim) {
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
    const auto gathered = gather(rows);
    std::vector<RowGroup> groups;
    for (unsigned pool = 0; pool < gathered.size(); ++pool)
        if (!gathered[pool].ranks.empty()) groups.push_back(spell(4u << pool, gathered[pool], rows.dim));
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
