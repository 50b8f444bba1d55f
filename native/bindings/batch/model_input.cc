// ModelInput for pipeline/trainer/tables/model_input.py, which checks dtypes and shapes first.
#include "batch/model_input.h"

#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <utility>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/batch/pooling_kind.h"
#include "bindings/quantizer/rounding_number.h"

using namespace springtide_bindings;
using springtide::FieldKeys;
using springtide::ModelInput;
using springtide::Table;
using springtide::TableKeys;

namespace {

// The arrays of a batch, which must stay alive while it is pending, active or deferred.
struct TableArrays {
    In<uint64_t> keys;
    In<uint32_t> counts;
};

struct FieldArrays {
    In<int32_t> inverse;
    In<int64_t> offsets;
    In<float> weights;  // empty without weights
};

using NamedPooling = std::pair<std::string, size_t>;  // kind and max_length
using NumberedRounding = std::pair<unsigned, float>;     // number, and the importance below which rows are rounded

struct Batch {
    std::vector<TableArrays> tables;
    std::vector<FieldArrays> fields;
    size_t samples = 0;
    bool waiting = false;  // found and not gathered yet
};

class BoundInput {
public:
    BoundInput(std::vector<nb::object> tables, const std::vector<size_t>& table_of_field,
               const std::vector<NamedPooling>& poolings, size_t dense_columns, size_t threads,
               const std::vector<NumberedRounding>& roundings)
        : tables_(std::move(tables)),
          input_(natives(), fields_of(table_of_field, poolings), dense_columns, threads, roundings_of(roundings)) {}

    std::vector<size_t> find(const nb::list& tables, const nb::list& fields) {
        Batch batch;
        std::vector<TableKeys> keys;
        for (const nb::handle table : tables) {
            const auto parts = nb::cast<nb::tuple>(table);
            const TableArrays& last = batch.tables.emplace_back(nb::cast<In<uint64_t>>(parts[0], false),
                                                                nb::cast<In<uint32_t>>(parts[1], false));
            keys.push_back({span_of(last.keys), span_of(last.counts)});
        }
        std::vector<FieldKeys> occurrences;
        for (const nb::handle field : fields) {
            const auto parts = nb::cast<nb::tuple>(field);
            const FieldArrays& last = batch.fields.emplace_back(nb::cast<In<int32_t>>(parts[0], false),
                                                                nb::cast<In<int64_t>>(parts[1], false),
                                                                nb::cast<In<float>>(parts[2], false));
            occurrences.push_back({span_of(last.inverse), span_of(last.offsets), span_of(last.weights)});
        }
        batch.samples = batch.fields.empty() ? 0 : batch.fields[0].offsets.size() - 1;
        batch.waiting = true;
        for (const FieldArrays& each : batch.fields)
            if (each.offsets.size() - 1 != batch.samples)
                throw std::invalid_argument("offsets: fields differ in samples");
        std::vector<size_t> missing(tables_.size());
        without_gil([&] { input_.find(keys, occurrences, missing.data()); });
        pending_ = std::move(batch);
        return missing;
    }

    void resident(size_t table, Out<uint8_t> resident) const {
        if (resident.size() != pending_.tables.at(table).keys.size())
            throw std::invalid_argument("resident: wrong length");
        input_.resident(table, resident.data());
    }

    void admit(size_t table, In<int64_t> places, uint32_t at_s) { input_.admit(table, span_of(places), at_s); }

    nb::list admit_missing(const std::vector<size_t>& tables, uint32_t at_s) {
        auto places = without_gil([&] { return input_.admit_missing(tables, at_s); });
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

    void defer() {
        if (std::exchange(pending_.waiting, false)) std::swap(pending_, active_);
        std::swap(active_, deferred_);
        input_.defer();
    }

    void learn_deferred(InRows<float> gradient, uint32_t at_s) {
        check("gradient", deferred_, gradient.shape(0), gradient.shape(1));
        {
            nb::gil_scoped_release nogil;
            input_.learn_deferred(gradient.data(), at_s);
        }
        deferred_ = {};
    }

private:
    std::vector<Table*> natives() const {
        std::vector<Table*> natives;
        for (const nb::object& table : tables_) natives.push_back(nb::cast<Table*>(table));
        return natives;
    }

    static std::vector<springtide::RowRounding> roundings_of(const std::vector<NumberedRounding>& numbered) {
        std::vector<springtide::RowRounding> roundings;
        for (const auto& [number, below] : numbered) roundings.push_back({rounding_of(number), below});
        return roundings;
    }

    static std::vector<ModelInput::Field> fields_of(const std::vector<size_t>& tables,
                                                    const std::vector<NamedPooling>& poolings) {
        std::vector<ModelInput::Field> fields;
        for (size_t f = 0; f < tables.size(); ++f) {
            const auto& [kind, max_length] = poolings.at(f);
            fields.push_back({tables[f], {pooling_kind(kind), max_length}});
        }
        return fields;
    }

    // The matrix may have more rows than the batch has samples; they are ignored.
    void check(const char* name, const Batch& batch, size_t rows, size_t columns) const {
        if (batch.fields.empty()) throw std::invalid_argument("got no batch. hint: find() and gather() first");
        if (rows >= batch.samples && columns == input_.columns()) return;
        throw std::invalid_argument(std::string(name) + ": got [" + std::to_string(rows) + ", " +
                                    std::to_string(columns) + "], wanted [" + std::to_string(batch.samples) +
                                    " or more, " + std::to_string(input_.columns()) + "]");
    }

    std::vector<nb::object> tables_;
    ModelInput input_;
    Batch pending_, active_, deferred_;
};

}  // namespace

void register_model_input(nb::module_& m) {
    nb::class_<BoundInput>(m, "ModelInput")
        .def(nb::init<std::vector<nb::object>, const std::vector<size_t>&, const std::vector<NamedPooling>&, size_t,
                      size_t, const std::vector<NumberedRounding>&>(),
             exact("tables"), exact("table_of_field"), exact("poolings"), exact("dense_columns"), exact("threads"),
             exact("roundings"))
        .def("find", &BoundInput::find, exact("tables"), exact("fields"))
        .def("resident", &BoundInput::resident, exact("table"), exact("resident"))
        .def("admit", &BoundInput::admit, exact("table"), exact("places"), exact("at_s"))
        .def("admit_missing", &BoundInput::admit_missing, exact("tables"), exact("at_s"))
        .def("gather", &BoundInput::gather, exact("out"))
        .def("learn", &BoundInput::learn, exact("gradient"), exact("at_s"))
        .def("defer", &BoundInput::defer)
        .def("learn_deferred", &BoundInput::learn_deferred, exact("gradient"), exact("at_s"));
}
