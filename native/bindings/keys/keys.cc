// Hashing of columns for pipeline/arrays/keys.py, which checks lengths first. The caller allocates the outputs.
#include "keys/keys.h"

#include <nanobind/stl/optional.h>

#include <optional>
#include <stdexcept>

#include "bindings/arrays.h"
#include "keys/xxh64.h"

using namespace springtide_bindings;

namespace {

using Bitmap = std::optional<In<uint8_t>>;

springtide::Validity validity(const Bitmap& bitmap, int64_t offset) {
    return {bitmap ? bitmap->data() : nullptr, offset};
}

template <typename Offset>
void bind_texts(nb::module_& m, const char* name) {
    m.def(
        name,
        [](In<Offset> offsets, In<uint8_t> text, Bitmap bitmap, int64_t offset, uint64_t seed, Out<uint64_t> out) {
            const auto valid = validity(bitmap, offset);
            const GilReleasedFor nogil(out.size());
            if (!springtide::hash_texts(offsets.data(), text.data(), text.size(), valid, out.size(), seed, out.data()))
                throw std::invalid_argument("offsets leave the text");
        },
        exact("offsets"), exact("text"), exact("bitmap").none(), exact("bit_offset"), exact("seed"), exact("out"));
}

}  // namespace

void register_keys(nb::module_& m) {
    bind_texts<int32_t>(m, "hash_texts");
    bind_texts<int64_t>(m, "hash_large_texts");
    m.def(
        "hash_integers",
        [](In<int64_t> values, Bitmap bitmap, int64_t offset, uint64_t seed, Out<uint64_t> out) {
            const auto valid = validity(bitmap, offset);
            const GilReleasedFor nogil(out.size());
            springtide::hash_integers(values.data(), valid, out.size(), seed, out.data());
        },
        exact("values"), exact("bitmap").none(), exact("bit_offset"), exact("seed"), exact("out"));
    m.def(
        "hash_doubles",
        [](In<double> values, Bitmap bitmap, int64_t offset, uint64_t seed, Out<uint64_t> out) {
            const auto valid = validity(bitmap, offset);
            const GilReleasedFor nogil(out.size());
            springtide::hash_doubles(values.data(), valid, out.size(), seed, out.data());
        },
        exact("values"), exact("bitmap").none(), exact("bit_offset"), exact("seed"), exact("out"));
    m.def(
        "hash_booleans",
        [](In<uint8_t> bits, Bitmap bitmap, int64_t offset, uint64_t seed, Out<uint64_t> out) {
            const auto valid = validity(bitmap, offset);
            const GilReleasedFor nogil(out.size());
            springtide::hash_booleans(bits.data(), offset, valid, out.size(), seed, out.data());
        },
        exact("bits"), exact("bitmap").none(), exact("bit_offset"), exact("seed"), exact("out"));
    m.def(
        "combine",
        [](InRows<uint64_t> keys, uint64_t seed, Out<uint64_t> out) {
            const GilReleasedFor nogil(out.size());
            springtide::combine(keys.data(), keys.shape(0), keys.shape(1), seed, out.data());
        },
        exact("keys"), exact("seed"), exact("out"));
    m.def("null_key", &springtide::null_key, exact("seed"));
    m.def(
        "xxh64", [](nb::bytes bytes, uint64_t seed) { return springtide::xxh64(bytes.data(), bytes.size(), seed); },
        exact("bytes"), exact("seed"));
}
