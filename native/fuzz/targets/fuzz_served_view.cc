// The served view under arbitrary puts, removals and staged changes: a second view filled from its export has the same
// digest.
#include "fuzz/input.h"
#include "quantizer/quantizer.h"
#include "serving/served_view.h"

#include <memory>

namespace {

constexpr size_t kMaxRows = 32;

void put(springtide::ServedView& view, Input& input) {
    const size_t n = input.take_size(kMaxRows);
    std::vector<uint64_t> keys = input.take_many<uint64_t>(n);
    std::vector<uint32_t> handles = input.take_many<uint32_t>(n);
    std::vector<uint8_t> bits = input.take_many<uint8_t>(n);
    size_t bytes = 0;
    for (size_t i = 0; i < n; ++i) {
        keys[i] %= 256;  // few keys and handles, so that they conflict
        handles[i] = handles[i] % 300 == 299 ? springtide::ServedView::kNoHandle : handles[i] % 300;
        bits[i] = static_cast<uint8_t>(4u << bits[i] % 4);
        bytes += springtide::payload_bytes(bits[i], view.dim());
    }
    const std::vector<uint8_t> payload = input.take_many<uint8_t>(bytes);
    const uint64_t before = view.digest();
    uint64_t wanted = before;
    const size_t checked =
        view.digest_after(keys.data(), handles.data(), bits.data(), payload.data(), n, nullptr, 0, &wanted);
    const size_t done = view.put(keys.data(), handles.data(), bits.data(), payload.data(), n);
    must(done == n || view.digest() == before, "a rejected batch changes nothing");
    must(done < n || (checked == n && view.digest() == wanted), "digest_after() predicts the digest");
}

// A staged change ends as removals and a put of its absolute rows do.
void change(springtide::ServedView& view, springtide::ServedView& other, Input& input) {
    const size_t k = input.take_size(kMaxRows), n = k + input.take_size(kMaxRows), r = input.take_size(4);
    std::vector<uint32_t> handles = input.take_many<uint32_t>(n);
    std::vector<uint64_t> keys = input.take_many<uint64_t>(n - k), removed = input.take_many<uint64_t>(r);
    std::vector<uint8_t> bits = input.take_many<uint8_t>(n), flags = input.take_many<uint8_t>(k);
    const auto relative = std::make_unique<bool[]>(k + 1);
    size_t bytes = 0;
    for (size_t i = 0; i < n; ++i) {
        handles[i] %= 300;
        bits[i] = static_cast<uint8_t>(4u << bits[i] % 4);
        bytes += springtide::payload_bytes(bits[i], view.dim());
        if (i < k) relative[i] = flags[i] % 2;
    }
    for (uint64_t& key : keys) key %= 256;
    for (uint64_t& key : removed) key %= 256;
    const std::vector<uint8_t> payload = input.take_many<uint8_t>(bytes);
    const springtide::DeltaRows rows{handles.data(), relative.get(), k,              keys.data(), handles.data() + k, n - k,
                                     bits.data(),    payload.data(), removed.data(), r,           view.dim()};
    const auto staged = view.stage(rows);
    if (staged.defect != springtide::ServedView::Staged::Defect::kNone) return;
    const bool applied = view.apply(rows, staged);
    other.remove(removed.data(), r);
    const size_t done = other.put(staged.keys.data(), handles.data(), bits.data(), staged.payload.data(), n);
    must(applied == (done == n), "apply() refuses what put() does");
    if (!applied) view.remove(removed.data(), r);
    must(view.digest() == other.digest() && view.size() == other.size(), "apply() is remove() and put()");
    must(!applied || view.digest() == staged.digest, "stage() predicts the digest");
}

void compare_with_copy(const springtide::ServedView& view) {
    const std::vector<uint64_t> keys = view.keys();
    const springtide::ServedView::Exported rows = view.export_rows(keys.data(), keys.size());
    springtide::ServedView copy(view.dim(), true);
    const size_t n = keys.size();
    const size_t done = copy.put(keys.data(), rows.handles.data(), rows.bits.data(), rows.payload.data(), n);
    must(done == n, "an export can be put");
    must(copy.digest() == view.digest() && copy.payload_total() == view.payload_total(), "a copy is equal");
    std::vector<float> decoded(n * view.dim());
    view.decode(keys.data(), n, decoded.data());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
    Input input(bytes, size);
    const size_t dim = 1 + input.take_size(40);
    springtide::ServedView view(dim, true), other(dim, true);
    while (!input.empty()) {
        const unsigned call = input.take<uint8_t>() % 8;
        if (call < 2) {
            change(view, other, input);
        } else if (call < 6) {
            Input again = input;
            put(view, input);
            put(other, again);
        } else {
            std::vector<uint64_t> keys = input.take_many<uint64_t>(input.take_size(kMaxRows));
            for (uint64_t& key : keys) key %= 256;
            view.remove(keys.data(), keys.size());
            other.remove(keys.data(), keys.size());
        }
    }
    compare_with_copy(view);
    return 0;
}
