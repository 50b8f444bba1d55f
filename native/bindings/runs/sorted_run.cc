// Sorted runs for pipeline/versions/runs/sorted_run.py, which checks arguments first. An index is passed as bytes.
#include "runs/sorted_run.h"

#include <nanobind/stl/vector.h>

#include "bindings/arrays.h"
#include "bindings/runs/views.h"
#include "runs/columns.h"
#include "runs/key_filter.h"
#include "runs/run_files.h"

using namespace nanobind::literals;
using namespace springtide_bindings;
using namespace springtide;

namespace {

using Bytes = In<uint8_t>;

nb::tuple result(Run&& run) {
    const auto* entries = reinterpret_cast<const uint8_t*>(run.blocks.data());
    std::vector<uint8_t> blocks(entries, entries + run.blocks.size() * sizeof(BlockEntry));
    return nb::make_tuple(owned(std::move(run.bytes)), owned(std::move(blocks)));
}

// (blocks, index)
nb::tuple encode(In<uint64_t> keys, In<uint64_t> removed, const std::vector<InRows<uint8_t>>& rows, Bytes rest,
                 In<uint32_t> rest_bytes, size_t block_bytes) {
    std::vector<Column> columns;
    for (const InRows<uint8_t>& each : rows) columns.push_back({each.data(), each.shape(1)});
    const bool with_rest = rest_bytes.size() != 0;
    const RunArrays arrays{span_of(keys), span_of(removed), columns, rest.data(),
                           with_rest ? rest_bytes.data() : nullptr};
    return result(without_gil([&] { return encode_run(arrays, block_bytes); }));
}

// (keys, removed, columns, rest, bytes of rest of each key)
nb::tuple decode(Bytes bytes, Bytes blocks, const std::vector<size_t>& widths, bool with_rest) {
    DecodedRun run = without_gil([&] { return decode_run(view_of(bytes, blocks), widths, with_rest); });
    nb::list columns;
    for (std::vector<uint8_t>& column : run.columns) columns.append(owned(std::move(column)));
    return nb::make_tuple(owned(std::move(run.keys)), owned(std::move(run.removed)), columns,
                          owned(std::move(run.rest)), owned(std::move(run.rest_bytes)));
}

// (blocks, index)
nb::tuple merge(const std::vector<Bytes>& bytes, const std::vector<Bytes>& blocks, uint64_t first, uint64_t last,
                bool keep_removed, size_t block_bytes, uint64_t offset) {
    const std::vector<RunView> runs = views_of(bytes, blocks);
    return result(
        without_gil([&] { return merge_runs(runs, first, last, keep_removed, block_bytes, offset); }));
}

void find_rows(const std::vector<int>& descriptors, const std::vector<uint64_t>& starts,
               const std::vector<Bytes>& indexes, const std::vector<Bytes>& filters, In<uint64_t> keys,
               OutRows<uint8_t> values, Out<uint8_t> entries, Out<uint32_t> file_of, Out<uint32_t> reading) {
    std::vector<RunFile> files;
    for (size_t i = 0; i < descriptors.size(); ++i)
        files.push_back({descriptors[i], starts.at(i), view_of(filters.at(i), indexes.at(i)).blocks,
                         span_of(filters.at(i))});
    without_gil([&] {
        find_in_files(files, span_of(keys), values.shape(1), values.data(), reinterpret_cast<Entry*>(entries.data()),
                      file_of.data(), reading.data());
        return 0;
    });
}

}  // namespace

void register_sorted_run(nb::module_& m) {
    m.def("run_keys", [](Bytes bytes, Bytes blocks) {
        return owned(without_gil([&] { return keys_of(view_of(bytes, blocks)); }));
    }, exact("bytes"), exact("blocks"));
    m.def("find_in_files", &find_rows, "descriptors"_a, "starts"_a, "indexes"_a, "filters"_a, exact("keys"),
          exact("values"), exact("entries"), exact("file_of"), exact("reading"));
    m.def("filter_bytes", &filter_bytes, "keys"_a);
    m.def("add_keys", [](Out<uint8_t> filter, In<uint64_t> keys) {
        add_keys({filter.data(), filter.size()}, span_of(keys));
    }, exact("filter"), exact("keys"), WithoutGil());
    m.def("may_contain", [](Bytes filter, In<uint64_t> keys, Out<uint8_t> passed) {
        may_contain(span_of(filter), span_of(keys), passed.data());
    }, exact("filter"), exact("keys"), exact("passed"), WithoutGil());
    m.def("encode_run", encode, exact("keys"), exact("removed"), exact("columns"), exact("rest"), exact("rest_bytes"),
          exact("block_bytes"));
    m.def("decode_run", decode, exact("bytes"), exact("blocks"), exact("widths"), exact("with_rest"));
    m.def("merge_runs", merge, exact("bytes"), exact("blocks"), exact("first"), exact("last"), exact("keep_removed"),
          exact("block_bytes"), exact("offset"));
}
