// Arbitrary bytes as coded rows: what decodes survives a round trip. Arbitrary rows survive one, too.
#include "serving/coded_rows.h"

#include <algorithm>
#include <memory>

#include "fuzz/input.h"
#include "quantizer/quantizer.h"
#include "wire/entropy.h"

namespace {

std::vector<uint8_t> coded(const springtide::DecodedRows& rows, size_t dim) {
    const std::vector<uint8_t>& flags = rows.relative;
    const auto relative = std::make_unique<bool[]>(flags.size());
    std::copy(flags.begin(), flags.end(), relative.get());
    return springtide::code_rows({rows.handles.data(), relative.get(), rows.handles.size(), rows.new_keys.data(),
                                  rows.new_handles.data(), rows.new_keys.size(), rows.bits.data(),
                                  rows.payload.data(), rows.removed.data(), rows.removed.size(), dim});
}

size_t held_bytes(const springtide::DecodedRows& rows) {
    return 4 * (rows.handles.capacity() + rows.new_handles.capacity()) +
           8 * (rows.new_keys.capacity() + rows.removed.capacity()) + rows.relative.capacity() + rows.bits.capacity() +
           rows.payload.capacity();
}

void read(const uint8_t* bytes, size_t size, size_t dim) {
    springtide::DecodedRows rows, again;
    const char* defect = springtide::decode_rows(bytes, size, dim, rows);
    must(held_bytes(rows) <= 576 * (size + 1), "memory is bounded by the bytes");
    if (defect != nullptr) return;
    const springtide::RowCounts counts = springtide::announced_rows(bytes, size);
    must(counts.removed == rows.removed.size(), "what is announced is there");
    const std::vector<uint8_t> written = coded(rows, dim);
    must(springtide::decode_rows(written.data(), written.size(), dim, again) == nullptr, "the encoding is valid");
    must(again.payload == rows.payload && again.handles == rows.handles && again.removed == rows.removed, "same rows");
}

// Counts that the rest of the stream does not honour, and a stream that is longer than the mutations make it.
void announce(Input& input) {
    springtide::EntropyEncoder encoder;
    springtide::Scale counts, values;
    for (int i = 0; i < 13; ++i) encoder.put(input.take<uint32_t>() >> input.take_size(32) % 32, counts);
    const size_t zeros = input.take_size(60'000);
    for (size_t i = 0; i < zeros; ++i) encoder.put(0, values);
    std::vector<uint8_t> stream;
    encoder.finish(stream);
    read(stream.data(), stream.size(), 1 + input.take_size(1'000));
}

void write(Input& input) {
    const size_t known = input.take_size(20), fresh = input.take_size(20), dim = 1 + input.take_size(20);
    springtide::DecodedRows rows, again;
    rows.handles = input.take_many<uint32_t>(known);
    rows.new_keys = input.take_many<uint64_t>(fresh);
    rows.new_handles = input.take_many<uint32_t>(fresh);
    rows.removed = input.take_many<uint64_t>(input.take_size(20));
    rows.bits = input.take_many<uint8_t>(known + fresh);
    rows.relative = input.take_many<uint8_t>(known);
    size_t bytes = 0;
    for (size_t i = 0; i < known + fresh; ++i) {
        rows.bits[i] = static_cast<uint8_t>(4u << rows.bits[i] % 4);
        bytes += springtide::payload_bytes(rows.bits[i], dim);
        if (i < known) rows.relative[i] = rows.relative[i] % 2 && rows.bits[i] < 32;
    }
    rows.payload = input.take_many<uint8_t>(bytes);
    const std::vector<uint8_t> written = coded(rows, dim);
    must(springtide::decode_rows(written.data(), written.size(), dim, again) == nullptr, "the encoding is valid");
    must(again.handles.size() == known && again.new_keys.size() == fresh, "no row is lost");
    must(again.payload.size() == bytes && coded(again, dim) == written, "the same bytes again");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
    if (size > 0) read(bytes + 1, size - 1, 1 + bytes[0] % 20);
    Input input(bytes, size);
    write(input);
    Input counts(bytes, size);
    announce(counts);
    return 0;
}
