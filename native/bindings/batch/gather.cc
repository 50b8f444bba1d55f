// Gathering of Arrow buffers for pipeline/arrays/gather.py, which checks places and buffer sizes first.
#include "batch/gather.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <stdexcept>
#include <vector>

#include "bindings/arrays.h"

using namespace springtide_bindings;

namespace {

using Places = In<uint64_t>;
using Bitmaps = std::vector<std::optional<In<uint8_t>>>;
template <typename T>
using Chunks = std::vector<In<T>>;

template <typename Word>
void bind_words(nb::module_& m, const char* name) {
    m.def(
        name,
        [](Places places, const Chunks<Word>& chunks, Out<Word> out) {
            std::vector<const Word*> data;
            for (const auto& chunk : chunks) data.push_back(chunk.data());
            nb::gil_scoped_release nogil;
            springtide::gather_words(span_of(places), data.data(), out.data());
        },
        exact("places"), exact("chunks"), exact("out"));
}

size_t gather_bits(Places places, const Bitmaps& bitmaps, In<uint64_t> bit_offsets, Out<uint8_t> out) {
    std::vector<springtide::Bits> chunks;
    for (size_t i = 0; i < bitmaps.size(); ++i)
        chunks.push_back({bitmaps[i] ? bitmaps[i]->data() : nullptr, bit_offsets.data()[i]});
    nb::gil_scoped_release nogil;
    return springtide::gather_bits(span_of(places), chunks.data(), out.data());
}

std::vector<springtide::Ranges> ranges_of(const Chunks<int32_t>& offsets, In<uint64_t> lengths) {
    std::vector<springtide::Ranges> chunks;
    for (size_t i = 0; i < offsets.size(); ++i)
        chunks.push_back({offsets[i].data(), nullptr, lengths.data()[i]});
    return chunks;
}

void gather_offsets(Places places, const Chunks<int32_t>& offsets, In<uint64_t> lengths, Out<int32_t> out) {
    const auto chunks = ranges_of(offsets, lengths);
    nb::gil_scoped_release nogil;
    if (!springtide::gather_offsets(span_of(places), chunks.data(), out.data()))
        throw std::invalid_argument("offsets leave the values, or all of them 2 GiB");
}

void gather_texts(Places places, const Chunks<int32_t>& offsets, const Chunks<uint8_t>& texts, In<int32_t> out_offsets,
                  Out<uint8_t> out) {
    std::vector<springtide::Ranges> chunks;
    for (size_t i = 0; i < offsets.size(); ++i)
        chunks.push_back({offsets[i].data(), texts[i].data(), texts[i].size()});
    nb::gil_scoped_release nogil;
    springtide::gather_texts(span_of(places), chunks.data(), out_offsets.data(), out.data());
}

void gather_members(Places places, const Chunks<int32_t>& offsets, In<uint64_t> lengths, Out<uint64_t> out) {
    const auto chunks = ranges_of(offsets, lengths);
    nb::gil_scoped_release nogil;
    springtide::gather_members(span_of(places), chunks.data(), out.data());
}

}  // namespace

void register_gather(nb::module_& m) {
    m.def(
        "places_fit",
        [](Places places, In<uint64_t> rows) {
            nb::gil_scoped_release nogil;
            return springtide::places_fit(span_of(places), span_of(rows));
        },
        exact("places"), exact("rows"));
    bind_words<uint8_t>(m, "gather_words8");
    bind_words<uint32_t>(m, "gather_words32");
    bind_words<uint64_t>(m, "gather_words64");
    m.def("gather_bits", &gather_bits, exact("places"), exact("bitmaps"), exact("bit_offsets"), exact("out"));
    m.def("gather_offsets", &gather_offsets, exact("places"), exact("offsets"), exact("lengths"), exact("out"));
    m.def("gather_texts", &gather_texts, exact("places"), exact("offsets"), exact("texts"), exact("out_offsets"),
          exact("out"));
    m.def("gather_members", &gather_members, exact("places"), exact("offsets"), exact("lengths"), exact("out"));
}
