// ModelInput for pipeline/trainer/tables/model_input.py, which checks dtypes and shapes first.
#include "batch/model_input.h"

#include <nanobind/stl/vector.h>

#include <utility>
#include <vector>

#include "bindings/arrays.h"

using namespace springtide_bindings;
using springtide::FieldKeys;
using springtide::ModelInput;
using springtide::Table;

namespace {

// The arrays of one field, which must stay alive while their batch is pending or active.
struct FieldArrays {
    In<uint64_t> keys;
    In<int32_t> inverse;
    In<uint32_t> counts;
    In<int64_t> offsets;
};

struct Batch {
    std::vector<FieldArrays> arrays;
    size_t samples = 0;
    bool waiting = false;  // found and not gathered yet
};

class BoundInput {
public:
    BoundInput(std::vector<nb::object> tables, const std::vector<bool>& mean, size_t dense_columns, size_t threads)
        : tables_(std::move(tables)), input_(fields_of(mean), dense_columns, threads) {}

    std::vector<size_t> find(const nb::list& batch) {
        std::vector<FieldArrays> arrays;
        std::vector<FieldKeys> keys;
        for (const nb::handle field : batch) {
            const auto parts = nb::cast<nb::tuple>(field);
            arrays.push_back({nb::cast<In<uint64_t>>(parts[0], false), nb::cast<In<int32_t>>(parts[1], false),
                              nb::cast<In<uint32_t>>(parts[2], false), nb::cast<In<int64_t>>(parts[3], false)});
            const FieldArrays& last = arrays.back();
            keys.push_back({span_of(last.keys), span_of(last.inverse), span_of(last.counts), span_of(last.offsets)});
        }
        const size_t samples = arrays.empty() ? 0 : arrays[0].offsets.size() - 1;
        for (const FieldArrays& each : arrays)
            if (each.offsets.size() - 1 != samples) throw std::invalid_argument("offsets: fields differ in samples");
        std::vector<size_t> missing(tables_.size());
        without_gil([&] { input_.find(keys, missing.data()); });
        pending_ = {std::move(arrays), samples, true};
        return missing;
    }

    void resident(size_t field, Out<uint8_t> resident) const {
        if (resident.size() != pending_.arrays.at(field).keys.size())
            throw std::invalid_argument("resident: wrong length");
        input_.resident(field, resident.data());
    }

    void admit(size_t field, In<int64_t> places, uint32_t at_s) { input_.admit(field, span_of(places), at_s); }

    nb::list admit_missing(const std::vector<size_t>& fields, uint32_t at_s) {
        auto places = without_gil([&] { return input_.admit_missing(fields, at_s); });
        nb::list arrays;
        for (auto& each : places) arrays.append(owned(std::move(each)));
        return arrays;
    }

    void gather(OutRows<float> out) {
        check("out", pending_.waiting ? pending_ : active_, out.shape(0), out.shape(1));
        if (std::exchange(pending_.waiting, false)) std::swap(pending_, active_);
        nb::gil_scoped_release nogil;
        input_.gather(out.data());
    }

    void learn(InRows<float> gradient, uint32_t at_s) {
        check("gradient", active_, gradient.shape(0), gradient.shape(1));
        nb::gil_scoped_release nogil;
        input_.learn(gradient.data(), at_s);
    }

private:
    std::vector<ModelInput::Field> fields_of(const std::vector<bool>& mean) const {
        std::vector<ModelInput::Field> fields;
        for (size_t f = 0; f < tables_.size(); ++f) fields.push_back({nb::cast<Table*>(tables_[f]), mean.at(f)});
        return fields;
    }

    // The matrix may have more rows than the batch has samples; they are ignored.
    void check(const char* name, const Batch& batch, size_t rows, size_t columns) const {
        if (batch.arrays.empty()) throw std::invalid_argument("got no batch. hint: find() and gather() first");
        if (rows >= batch.samples && columns == input_.columns()) return;
        throw std::invalid_argument(std::string(name) + ": got [" + std::to_string(rows) + ", " +
                                    std::to_string(columns) + "], wanted [" + std::to_string(batch.samples) +
                                    " or more, " + std::to_string(input_.columns()) + "]");
    }

    std::vector<nb::object> tables_;
    ModelInput input_;
    Batch pending_, active_;
};

}  // namespace

void register_model_input(nb::module_& m) {
    nb::class_<BoundInput>(m, "ModelInput")
        .def(nb::init<std::vector<nb::object>, const std::vector<bool>&, size_t, size_t>(), exact("tables"),
             exact("mean"), exact("dense_columns"), exact("threads"))
        .def("find", &BoundInput::find, exact("batch"))
        .def("resident", &BoundInput::resident, exact("field"), exact("resident"))
        .def("admit", &BoundInput::admit, exact("field"), exact("places"), exact("at_s"))
        .def("admit_missing", &BoundInput::admit_missing, exact("fields"), exact("at_s"))
        .def("gather", &BoundInput::gather, exact("out"))
        .def("learn", &BoundInput::learn, exact("gradient"), exact("at_s"));
}
