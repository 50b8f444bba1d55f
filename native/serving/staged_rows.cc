#include <algorithm>

#include "quantizer/quantizer.h"
#include "serving/served_view.h"

namespace springtide {
namespace {

// Ascending runs, of which the rows of a delta have a few, are merged; more are sorted.
template <class Value>
bool all_distinct(std::vector<Value> values) {
    constexpr int kFewRuns = 8;
    auto sorted = std::is_sorted_until(values.begin(), values.end());
    for (int merged = 0; sorted != values.end(); ++merged) {
        if (merged == kFewRuns) {
            std::sort(values.begin(), values.end());
            break;
        }
        const auto next = std::is_sorted_until(sorted, values.end());
        std::inplace_merge(values.begin(), sorted, next);
        sorted = std::is_sorted_until(next == values.end() ? next : next - 1, values.end());
    }
    return std::adjacent_find(values.begin(), values.end()) == values.end();
}

std::vector<uint32_t> all_handles_of(const DeltaRows& rows) {
    std::vector<uint32_t> handles(rows.handles, rows.handles + rows.known_count);
    handles.insert(handles.end(), rows.new_handles, rows.new_handles + rows.new_count);
    return handles;
}

}  // namespace

ServedView::Staged ServedView::stage(const DeltaRows& rows) const {
    Staged staged;
    const size_t n = rows.known_count + rows.new_count;
    {
        const ReadLock lock(mutex_);
        staged.changes = changes_;
        staged.digest = digest_;
        stage_known(rows, staged);
        if (staged.defect == Staged::Defect::kNone) stage_new_and_removed(rows, staged);
    }
    if (staged.defect != Staged::Defect::kNone || staged.distinct) return staged;
    const size_t conflict = digest_after(staged.keys.data(), all_handles_of(rows).data(), rows.bits,
                                         staged.payload.data(), n, rows.removed, rows.removed_count, &staged.digest);
    if (conflict < n) staged.defect = Staged::Defect::kHandleInUse, staged.at = conflict;
    return staged;
}

// Reads each stored row once: its key, its integers and its hash.
void ServedView::stage_known(const DeltaRows& rows, Staged& staged) const {
    const size_t k = rows.known_count;
    size_t bytes = 0;
    for (size_t i = 0; i < k + rows.new_count; ++i) bytes += payload_bytes(rows.bits[i], dim_);
    staged.payload.assign(rows.payload, rows.payload + bytes);
    staged.places.resize(k);
    for (size_t i = 0; i < k; ++i) staged.places[i] = (*by_handle_)[rows.handles[i]];
    staged.keys.reserve(k + rows.new_count);
    RowHash hash(dim_);
    uint8_t* payload = staged.payload.data();
    for (size_t i = 0; i < k; payload += payload_bytes(rows.bits[i], dim_), ++i) {
        prefetch_ahead(staged.places, i);
        const Place place = staged.places[i];
        const unsigned bits = rows.bits[i];
        const bool fits = place != kNoRow && (!rows.relative[i] || (bits_of(place) == bits && is_integer_precision(bits)));
        if (!fits) {
            staged.defect = place == kNoRow ? Staged::Defect::kUnknownHandle : Staged::Defect::kNoDifference;
            staged.at = i;
            return;
        }
        const uint64_t key = header_of(cell_at(place)).key;
        staged.keys.push_back(key);
        staged.digest -= hash(key, bits_of(place), payload_at(place));
        if (rows.relative[i]) add_integers(payload_at(place), dim_, bits, payload);
        staged.digest += hash(key, bits, payload);
    }
}

void ServedView::stage_new_and_removed(const DeltaRows& rows, Staged& staged) const {
    std::vector<uint64_t> others(rows.new_keys, rows.new_keys + rows.new_count);
    staged.keys.insert(staged.keys.end(), others.begin(), others.end());
    others.insert(others.end(), rows.removed, rows.removed + rows.removed_count);
    std::vector<uint32_t> handles(rows.handles, rows.handles + rows.known_count);
    const std::vector<Place> places = places_of(others.data(), others.size());
    RowHash hash(dim_);
    const uint8_t* payload = staged.payload.data();
    for (size_t i = 0; i < rows.known_count; ++i) payload += payload_bytes(rows.bits[i], dim_);
    bool stored = false;  // a key or handle that is new to the sender
    for (size_t i = 0; i < rows.new_count; ++i) {
        const unsigned bits = rows.bits[rows.known_count + i];
        stored |= places[i] != kNoRow || !is_free(rows.new_handles[i]);
        staged.digest += hash(others[i], bits, payload);
        payload += payload_bytes(bits, dim_);
    }
    for (size_t i = rows.new_count; i < others.size(); ++i) {
        prefetch_ahead(places, i);
        if (places[i] == kNoRow) continue;
        handles.push_back(header_of(cell_at(places[i])).handle);
        staged.digest -= hash(others[i], bits_of(places[i]), payload_at(places[i]));
    }
    const std::vector<uint32_t> fresh(rows.new_handles, rows.new_handles + rows.new_count);
    staged.distinct = !stored && all_distinct(std::move(handles)) && all_distinct(std::move(others)) &&
                      all_distinct(fresh) && std::find(fresh.begin(), fresh.end(), kNoHandle) == fresh.end();
}

bool ServedView::apply(const DeltaRows& rows, const Staged& staged) {
    if (staged.changes != changes_) return false;
    if (!staged.distinct) {
        remove(rows.removed, rows.removed_count);
        return put(staged.keys.data(), all_handles_of(rows).data(), rows.bits, staged.payload.data(),
                   staged.keys.size()) == staged.keys.size();
    }
    const WriteLock lock(mutex_);
    ++changes_;
    for (size_t i = 0; i < rows.removed_count; ++i)
        if (const Place place = by_key_.find(rows.removed[i], KeyAt{*this}); place != kNoRow)
            remove_row(rows.removed[i], place);
    const uint8_t* payload = staged.payload.data();
    for (size_t i = 0; i < staged.keys.size(); payload += payload_bytes(rows.bits[i], dim_), ++i) {
        prefetch_ahead(staged.places, i);
        const bool known = i < rows.known_count;
        const Place place = known ? staged.places[i] : kNoRow;
        if (known && bits_of(place) == rows.bits[i])
            std::copy_n(payload, payload_bytes(rows.bits[i], dim_), stored_payload(place));
        else
            put_row(staged.keys[i], place, known ? rows.handles[i] : rows.new_handles[i - rows.known_count],
                    rows.bits[i], payload);
    }
    digest_ = staged.digest;
    return true;
}

}  // namespace springtide
