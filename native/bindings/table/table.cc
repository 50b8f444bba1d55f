// Table for pipeline/trainer/tables/table.py, which checks that the shapes of arguments match.
#include "table/table.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <utility>

#include "bindings/arrays.h"
#include "bindings/runs/views.h"

using namespace nanobind::literals;
using namespace springtide_bindings;
using springtide::Table;

namespace {

using Keys = In<uint64_t>;

void construct(Table* table, size_t dim, const std::string& optimizer, springtide::OptimizerOptions options,
               uint64_t seed, float init_scale, double half_life_s, size_t budget_bytes) {
    new (table)
        Table(dim, springtide::make_optimizer(optimizer, options), {seed, init_scale}, half_life_s, budget_bytes);
}

nb::tuple drain_changes(Table& table) {
    springtide::Changes changes = without_gil([&] { return table.drain_changes(); });
    return nb::make_tuple(owned(std::move(changes.touched)), owned(std::move(changes.removed)));
}

// (touched, packed, removed, touched_sum, digest)
nb::tuple finish(const springtide::ChangeSet& set) {
    springtide::Changes changes = without_gil([&] { return springtide::finish(set); });
    return nb::make_tuple(owned(std::move(changes.touched)), owned(std::move(changes.packed)),
                          owned(std::move(changes.removed)), changes.touched_sum, changes.digest);
}

size_t state_floats(const std::string& optimizer, size_t dim) {
    return springtide::make_optimizer(optimizer, {})->state_floats(dim);
}

size_t admit(Table& table, Keys keys, uint32_t at_s) {
    std::vector<uint32_t> rows(keys.size());
    return table.admit(span_of(keys), rows.data(), at_s);
}

using Binding = nb::class_<Table>;

void bind_options(nb::module_& m) {
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
}

void bind_reads(Binding& table) {
    table
        .def("contains",
             [](const Table& t, Keys keys, Out<uint8_t> out, size_t threads) {
                 t.contains(span_of(keys), out.data(), threads);
             },
             exact("keys"), exact("out"), "threads"_a, WithoutGil())
        .def("lookup",
             [](const Table& t, Keys keys, OutRows<float> out, size_t threads) {
                 t.lookup(span_of(keys), out.data(), threads);
             },
             exact("keys"), exact("out"), "threads"_a, WithoutGil())
        .def("keys", [](const Table& t, size_t most) { return owned(without_gil([&] { return t.keys(most); })); },
             "most"_a)
        .def("rows",
             [](const Table& t, Keys keys, OutRows<uint8_t> out, size_t threads) {
                 t.rows(span_of(keys), reinterpret_cast<std::byte*>(out.data()), threads);
             },
             exact("keys"), exact("out"), "threads"_a, WithoutGil())
        .def("statistics",
             [](const Table& t, Keys keys, OutRows<uint8_t> out, size_t threads) {
                 t.statistics(span_of(keys), reinterpret_cast<springtide::Statistics*>(out.data()), threads);
             },
             exact("keys"), exact("out"), "threads"_a, WithoutGil())
        .def("digest", &Table::digest)
        .def("scan_digest", &Table::scan_digest, WithoutGil());
}

void bind_writes(Binding& table) {
    table
        .def("admit", &admit, exact("keys"), "at_s"_a, WithoutGil())
        .def("update",
             [](Table& t, Keys keys, InRows<float> gradients, In<uint32_t> counts, uint32_t at_s, size_t threads) {
                 t.update(span_of(keys), gradients.data(), counts.data(), at_s, threads);
             },
             exact("keys"), exact("gradients"), exact("counts"), "at_s"_a, "threads"_a,
             WithoutGil())
        .def("remove", [](Table& t, Keys keys) { return t.remove(span_of(keys)); }, exact("keys"), WithoutGil())
        .def("import_rows",
             [](Table& t, Keys keys, InRows<uint8_t> packed) {
                 t.import_rows(span_of(keys), reinterpret_cast<const std::byte*>(packed.data()));
             },
             exact("keys"), exact("packed"), WithoutGil());
}

void bind_changes(Binding& table) {
    table
        .def("begin_changes", &Table::begin_changes, WithoutGil())
        .def("collect", &Table::collect, "max_rows"_a, WithoutGil())
        .def("release_collected", &Table::release_collected, WithoutGil())
        .def_prop_ro("frozen_rows", &Table::frozen_rows)
        .def("keys_before", [](const Table& t) { return owned(without_gil([&] { return t.keys_before(); })); })
        .def("rows_before",
             [](const Table& t, Keys keys, OutRows<uint8_t> out, Out<uint8_t> cold) {
                 t.rows_before(span_of(keys), reinterpret_cast<std::byte*>(out.data()), cold.data());
             },
             exact("keys"), exact("out"), exact("cold"), WithoutGil())
        .def("settle", &Table::settle, "touched_sum"_a)
        .def("drain_changes", &drain_changes);
}

size_t swap_out(Table& table, double worth, size_t max_rows, size_t max_scanned, const std::vector<Keys>& pinned) {
    std::vector<std::span<const uint64_t>> spans;
    for (const Keys& keys : pinned) spans.push_back(span_of(keys));
    return without_gil([&] { return table.swap_out(worth, max_rows, max_scanned, spans); });
}

void import_cold(Table& table, const std::vector<In<uint8_t>>& bytes, const std::vector<In<uint8_t>>& blocks,
                 uint64_t first, uint64_t last) {
    const std::vector<springtide::RunView> runs = views_of(bytes, blocks);
    without_gil([&] {
        table.import_cold(runs, first, last);
        return 0;
    });
}

void bind_tiers(Binding& table) {
    table.def_prop_ro("resident_rows", &Table::resident_rows)
        .def_prop_ro("cold_rows", &Table::cold_rows)
        .def_prop_ro("resident_row_bytes", &Table::resident_row_bytes)
        .def_prop_ro("cold_bytes", &Table::cold_bytes)
        .def("sample_worths", [](const Table& t, Out<double> out) { return t.sample_worths(out.size(), out.data()); },
             exact("out"), WithoutGil())
        .def("swap_out", &swap_out, "worth"_a, "max_rows"_a, "max_scanned"_a, "pinned"_a)
        .def("swap_in",
             [](Table& t, Keys keys, InRows<uint8_t> packed) {
                 return t.swap_in(span_of(keys), reinterpret_cast<const std::byte*>(packed.data()));
             },
             exact("keys"), exact("packed"), WithoutGil())
        .def("reserve_cold", &Table::reserve_cold, "rows"_a)
        .def("import_cold", &import_cold, exact("bytes"), exact("blocks"), "first"_a, "last"_a)
        .def("cold", [](const Table& t, Keys keys, Out<uint8_t> out) { t.cold(span_of(keys), out.data()); },
             exact("keys"), exact("out"), WithoutGil());
}

}  // namespace

void register_table(nb::module_& m) {
    bind_options(m);
    m.def("state_floats", &state_floats, "optimizer"_a, "dim"_a);
    nb::class_<springtide::ChangeSet>(m, "ChangeSet").def("finish", &finish);
    Binding table(m, "Table");
    table
        .def("__init__", &construct, "dim"_a, "optimizer"_a, "options"_a, "seed"_a, "init_scale"_a, "half_life_s"_a,
             "budget_bytes"_a)
        .def("__len__", &Table::size)
        .def_prop_ro("state_floats", &Table::state_floats)
        .def_prop_ro("max_rows", &Table::max_rows)
        .def_prop_ro("row_bytes", &Table::row_bytes)
        .def_prop_ro("memory_bytes", &Table::memory_bytes);
    bind_reads(table);
    bind_writes(table);
    bind_changes(table);
    bind_tiers(table);
}
