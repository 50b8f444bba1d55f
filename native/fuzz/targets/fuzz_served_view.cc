// The served view under arbitrary puts and removals: a second view filled from its export has the same digest.
#include "fuzz/input.h"
#include "quantizer/quantizer.h"
#include "serving/served_view.h"

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
    springtide::ServedView view(1 + input.take_size(40), true);
    while (!input.empty()) {
        if (input.take<uint8_t>() % 4 != 0) {
            put(view, input);
        } else {
            std::vector<uint64_t> keys = input.take_many<uint64_t>(input.take_size(kMaxRows));
            for (uint64_t& key : keys) key %= 256;
            view.remove(keys.data(), keys.size());
        }
    }
    compare_with_copy(view);
    return 0;
}
