// Record batches for pipeline/logs/kafka/record_batches.py, which decompresses between the two steps.
#include "wire/record_batches.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <string>
#include <tuple>

#include "bindings/arrays.h"

using namespace springtide_bindings;
using springtide::RecordBatch;

namespace {

std::span<const uint8_t> span_of(const nb::bytes& bytes) {
    return {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()};
}

std::optional<std::string> text_of(springtide::Defect defect) {
    return defect == nullptr ? std::nullopt : std::optional<std::string>(defect);
}

// A record set: its batches, and the defect that ended them, if any.
class Batches {
public:
    explicit Batches(nb::bytes set) : set_(std::move(set)) {
        const auto bytes = span_of(set_);
        nb::gil_scoped_release nogil;
        defect_ = springtide::find_batches(bytes, batches_);
    }

    std::optional<std::string> defect() const { return text_of(defect_); }
    size_t size() const { return batches_.size(); }

    template <typename T, typename Field>
    nb::ndarray<nb::numpy, T, nb::ndim<1>> column(Field field) const {
        std::vector<T> values;
        for (const RecordBatch& batch : batches_) values.push_back(static_cast<T>(field(batch)));
        return owned(std::move(values));
    }

    // The records of the batches `chosen`: (defect or None, number of batches decoded, columns). `inflated` has the
    // decompressed bytes of each, None for an uncompressed batch.
    nb::tuple decode(const std::vector<size_t>& chosen, const std::vector<std::optional<nb::bytes>>& inflated,
                     int64_t start) const {
        springtide::RecordColumns out;
        springtide::Defect defect = nullptr;
        size_t done = 0;
        {
            const auto set = span_of(set_);
            std::vector<std::span<const uint8_t>> parts;
            for (size_t i = 0; i < chosen.size(); ++i)
                parts.push_back(part(set, batches_.at(chosen[i]), inflated.at(i)));
            nb::gil_scoped_release nogil;
            reserve(chosen, parts, out);
            for (; done < chosen.size(); ++done) {
                defect = springtide::decode_records(batches_[chosen[done]], parts[done], start, out);
                if (defect != nullptr) break;
            }
        }
        return nb::make_tuple(text_of(defect), done, owned(std::move(out.offsets)), owned(std::move(out.times_ms)),
                              owned(std::move(out.value_ends)), owned(std::move(out.values)),
                              owned(std::move(out.header_ends)), owned(std::move(out.headers)));
    }

private:
    static std::span<const uint8_t> part(std::span<const uint8_t> set, const RecordBatch& batch,
                                         const std::optional<nb::bytes>& inflated) {
        if (inflated) return span_of(*inflated);
        return set.subspan(static_cast<size_t>(batch.begin), static_cast<size_t>(batch.end - batch.begin));
    }

    // The header's number of records is untrusted: limited to what the bytes can contain.
    void reserve(const std::vector<size_t>& chosen, const std::vector<std::span<const uint8_t>>& parts,
                 springtide::RecordColumns& out) const {
        size_t rows = 0, bytes = 0;
        for (size_t i = 0; i < chosen.size(); ++i) {
            bytes += parts[i].size();
            rows += std::min<size_t>(static_cast<size_t>(batches_[chosen[i]].records), parts[i].size() / 7);
        }
        out.values.reserve(bytes);
        for (auto* column : {&out.offsets, &out.times_ms}) column->reserve(rows);
        for (auto* column : {&out.value_ends, &out.header_ends}) column->reserve(rows);
    }

    nb::bytes set_;
    std::vector<RecordBatch> batches_;
    springtide::Defect defect_ = nullptr;
};

// Wraps around for invalid headers; decode() rejects the records of such a batch.
int64_t last_offset(const RecordBatch& batch) {
    return static_cast<int64_t>(static_cast<uint64_t>(batch.base_offset) +
                                static_cast<uint64_t>(batch.last_offset_delta));
}

// Binds a method that returns one header field of all batches.
template <typename T, typename Field>
void column(nb::class_<Batches>& bound, const char* name, Field field) {
    bound.def(name, [field](const Batches& self) { return self.column<T>(field); });
}

}  // namespace

void register_record_batches(nb::module_& m) {
    auto bound = nb::class_<Batches>(m, "RecordBatches");
    column<int64_t>(bound, "base_offsets", [](const RecordBatch& b) { return b.base_offset; });
    column<int64_t>(bound, "last_offsets", [](const RecordBatch& b) { return last_offset(b); });
    column<int64_t>(bound, "producer_ids", [](const RecordBatch& b) { return b.producer_id; });
    column<uint16_t>(bound, "attributes", [](const RecordBatch& b) { return b.attributes; });
    column<int64_t>(bound, "begins", [](const RecordBatch& b) { return b.begin; });
    column<int64_t>(bound, "ends", [](const RecordBatch& b) { return b.end; });
    bound
        .def(nb::init<nb::bytes>(), exact("record_set"))
        .def("__len__", &Batches::size)
        .def_prop_ro("wrong", &Batches::defect)
        .def("decode", &Batches::decode, nb::arg("chosen"), nb::arg("inflated"), nb::arg("start"));
}
