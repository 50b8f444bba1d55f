// Record batches for pipeline/logs/record_batches.py, which decompresses between the two steps.
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

std::optional<std::string> told(springtide::Wrong wrong) {
    return wrong == nullptr ? std::nullopt : std::optional<std::string>(wrong);
}

// Wrong or none; per batch (base offset, last offset, producer id, attributes, begin, end, the batch itself).
class Batches {
public:
    explicit Batches(nb::bytes set) : set_(std::move(set)) {
        const auto bytes = span_of(set_);
        nb::gil_scoped_release nogil;
        wrong_ = springtide::find_batches(bytes, found_);
    }

    std::optional<std::string> wrong() const { return told(wrong_); }
    size_t size() const { return found_.size(); }

    template <typename T, typename Field>
    nb::ndarray<nb::numpy, T, nb::ndim<1>> column(Field field) const {
        std::vector<T> values;
        for (const RecordBatch& batch : found_) values.push_back(static_cast<T>(field(batch)));
        return owned(std::move(values));
    }

    // The records of the batches `chosen`; `inflated` holds their decompressed bytes, None where they are as they came.
    nb::tuple decode(const std::vector<size_t>& chosen, const std::vector<std::optional<nb::bytes>>& inflated,
                     int64_t start) const {
        springtide::RecordColumns out;
        springtide::Wrong wrong = nullptr;
        size_t done = 0;
        {
            const auto set = span_of(set_);
            std::vector<std::span<const uint8_t>> parts;
            for (size_t i = 0; i < chosen.size(); ++i) parts.push_back(part(set, found_.at(chosen[i]), inflated.at(i)));
            nb::gil_scoped_release nogil;
            reserve(chosen, parts, out);
            for (; done < chosen.size(); ++done) {
                wrong = springtide::decode_records(found_[chosen[done]], parts[done], start, out);
                if (wrong != nullptr) break;
            }
        }
        return nb::make_tuple(told(wrong), done, owned(std::move(out.offsets)), owned(std::move(out.times_ms)),
                              owned(std::move(out.value_ends)), owned(std::move(out.values)),
                              owned(std::move(out.header_ends)), owned(std::move(out.headers)));
    }

private:
    static std::span<const uint8_t> part(std::span<const uint8_t> set, const RecordBatch& batch,
                                         const std::optional<nb::bytes>& inflated) {
        if (inflated) return span_of(*inflated);
        return set.subspan(static_cast<size_t>(batch.begin), static_cast<size_t>(batch.end - batch.begin));
    }

    // A batch says how many records it has; what its bytes cannot hold is found while decoding.
    void reserve(const std::vector<size_t>& chosen, const std::vector<std::span<const uint8_t>>& parts,
                 springtide::RecordColumns& out) const {
        size_t rows = 0, bytes = 0;
        for (size_t i = 0; i < chosen.size(); ++i) {
            bytes += parts[i].size();
            rows += std::min<size_t>(static_cast<size_t>(found_[chosen[i]].records), parts[i].size() / 7);
        }
        out.values.reserve(bytes);
        for (auto* column : {&out.offsets, &out.times_ms}) column->reserve(rows);
        for (auto* column : {&out.value_ends, &out.header_ends}) column->reserve(rows);
    }

    nb::bytes set_;
    std::vector<RecordBatch> found_;
    springtide::Wrong wrong_ = nullptr;
};

// Wraps around where a broker speaks nonsense; decode() refuses the records of such a batch.
int64_t last_offset(const RecordBatch& batch) {
    return static_cast<int64_t>(static_cast<uint64_t>(batch.base_offset) +
                                static_cast<uint64_t>(batch.last_offset_delta));
}

// A method that gives [batches] one field of every header.
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
        .def_prop_ro("wrong", &Batches::wrong)
        .def("decode", &Batches::decode, nb::arg("chosen"), nb::arg("inflated"), nb::arg("start"));
}
