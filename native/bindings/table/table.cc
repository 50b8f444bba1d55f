// Table for pipeline/trainer/tables/table.py, which checks that the shapes of arguments match.
#include "table/table.h"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <string>
#include <utility>

#include "bindings/arrays.h"

namespace nb = nanobind;
using namespace nb::literals;
using springtide::Table;
using springtide_bindings::owned;

namespace {

template <class T>
using In1 = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Keys = In1<uint64_t>;
using Floats = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using OutFloats = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Bytes = nb::ndarray<const uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using OutBytes = nb::ndarray<uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using OutFlags = nb::ndarray<uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using WithoutGil = nb::call_guard<nb::gil_scoped_release>;

std::span<const uint64_t> span_of(const Keys& keys) { return {keys.data(), keys.shape(0)}; }

void construct(Table* table, size_t dim, const std::string& optimizer, springtide::OptimizerOptions options,
               uint64_t seed, float init_scale, double half_life_s, size_t budget_bytes) {
    new (table)
        Table(dim, springtide::make_optimizer(optimizer, options), {seed, init_scale}, half_life_s, budget_bytes);
}

nb::object keys(const Table& table) {
    std::vector<uint64_t> keys;
    {
        nb::gil_scoped_release release;
        keys = table.keys();
    }
    return nb::cast(owned(std::move(keys)));
}

nb::object keys_before(const Table& table) {
    std::vector<uint64_t> keys;
    {
        nb::gil_scoped_release release;
        keys = table.keys_before();
    }
    return nb::cast(owned(std::move(keys)));
}

nb::tuple drain_changes(Table& table) {
    springtide::Changes changes;
    {
        nb::gil_scoped_release release;
        changes = table.drain_changes();
    }
    return nb::make_tuple(owned(std::move(changes.touched)), owned(std::move(changes.removed)));
}

// (touched, packed, removed, touched_sum, digest)
nb::tuple finish(const springtide::ChangeSet& set) {
    springtide::Changes changes;
    {
        nb::gil_scoped_release release;
        changes = springtide::finish(set);
    }
    return nb::make_tuple(owned(std::move(changes.touched)), owned(std::move(changes.packed)),
                          owned(std::move(changes.removed)), changes.touched_sum, changes.digest);
}

size_t state_floats(const std::string& optimizer, size_t dim) {
    return springtide::make_optimizer(optimizer, {})->state_floats(dim);
}

size_t admit(Table& table, Keys keys, uint32_t at_s) {
    std::vector<uint32_t> rows(keys.shape(0));
    return table.admit(span_of(keys), rows.data(), at_s);
}

}  // namespace

void register_table(nb::module_& m) {
    using Options = springtide::OptimizerOptions;
    nb::class_<Options>(m, "OptimizerOptions")
        .def(nb::init<>())
        .def_rw("learning_rate", &Options::learning_rate)
        .def_rw("initial_accumulator", &Options::initial_accumulator)
        .def_rw("beta1", &Options::beta1)
        .def_rw("beta2", &Options::beta2)
        .def_rw("epsilon", &Options::epsilon)
        .def_rw("beta", &Options::beta)
        .def_rw("l1", &Options::l1)
        .def_rw("l2", &Options::l2)
        .def_rw("l21", &Options::l21);
    m.def("state_floats", &state_floats, "optimizer"_a, "dim"_a);
    nb::class_<springtide::ChangeSet>(m, "ChangeSet").def("finish", &finish);
    nb::class_<Table>(m, "Table")
        .def("__init__", &construct, "dim"_a, "optimizer"_a, "options"_a, "seed"_a, "init_scale"_a, "half_life_s"_a,
             "budget_bytes"_a)
        .def("__len__", &Table::size)
        .def_prop_ro("state_floats", &Table::state_floats)
        .def_prop_ro("most_rows", &Table::max_rows)
        .def_prop_ro("row_bytes", &Table::row_bytes)
        .def_prop_ro("memory_bytes", &Table::memory_bytes)
        .def("admit", &admit, "keys"_a.noconvert(), "at_s"_a, WithoutGil())
        .def("contains",
             [](const Table& t, Keys keys, OutFlags out, size_t threads) {
                 t.contains(span_of(keys), out.data(), threads);
             },
             "keys"_a.noconvert(), "out"_a.noconvert(), "threads"_a, WithoutGil())
        .def("lookup",
             [](const Table& t, Keys keys, OutFloats out, size_t threads) {
                 t.lookup(span_of(keys), out.data(), threads);
             },
             "keys"_a.noconvert(), "out"_a.noconvert(), "threads"_a, WithoutGil())
        .def("update",
             [](Table& t, Keys keys, Floats gradients, In1<uint32_t> counts, uint32_t at_s, size_t threads) {
                 t.update(span_of(keys), gradients.data(), counts.data(), at_s, threads);
             },
             "keys"_a.noconvert(), "gradients"_a.noconvert(), "counts"_a.noconvert(), "at_s"_a, "threads"_a,
             WithoutGil())
        .def("remove", [](Table& t, Keys keys) { return t.remove(span_of(keys)); }, "keys"_a.noconvert(), WithoutGil())
        .def("keys", &keys)
        .def("rows",
             [](const Table& t, Keys keys, OutBytes out, size_t threads) {
                 t.rows(span_of(keys), reinterpret_cast<std::byte*>(out.data()), threads);
             },
             "keys"_a.noconvert(), "out"_a.noconvert(), "threads"_a, WithoutGil())
        .def("statistics",
             [](const Table& t, Keys keys, OutBytes out, size_t threads) {
                 t.statistics(span_of(keys), reinterpret_cast<springtide::Statistics*>(out.data()), threads);
             },
             "keys"_a.noconvert(), "out"_a.noconvert(), "threads"_a, WithoutGil())
        .def("import_rows",
             [](Table& t, Keys keys, Bytes packed) {
                 t.import_rows(span_of(keys), reinterpret_cast<const std::byte*>(packed.data()));
             },
             "keys"_a.noconvert(), "packed"_a.noconvert(), WithoutGil())
        .def("begin_changes", &Table::begin_changes, WithoutGil())
        .def("collect", &Table::collect, "max_rows"_a, WithoutGil())
        .def("take_collected", &Table::release_collected, WithoutGil())
        .def_prop_ro("frozen_rows", &Table::frozen_rows)
        .def("keys_before", &keys_before)
        .def("rows_before",
             [](const Table& t, Keys keys, OutBytes out) {
                 t.rows_before(span_of(keys), reinterpret_cast<std::byte*>(out.data()));
             },
             "keys"_a.noconvert(), "out"_a.noconvert(), WithoutGil())
        .def("settle", &Table::settle, "touched_sum"_a)
        .def("take_changes", &drain_changes)
        .def("digest", &Table::digest)
        .def("scan_digest", &Table::scan_digest, WithoutGil());
}
