// CSV rows for pipeline/ingest/files/csv_file.py, which checks the wanted fields first.
#include "wire/csv_rows.h"

#include <utility>

#include "bindings/arrays.h"

using namespace springtide_bindings;

namespace {

// (per column (valid, bytes, ends), lines, starts, stops, bad rows (line, start, end, problem, fields), rows, lines
// read, consumed, skipped, in long line)
nb::tuple split_csv(In<uint8_t> piece, bool last, bool in_long_line, In<int32_t> wanted, size_t fields,
                    size_t row_bytes, size_t rows, size_t bytes) {
    const springtide::CsvLimits limits{fields, row_bytes, rows, bytes};
    auto found = without_gil(
        [&] { return springtide::split_csv(span_of(piece), last, in_long_line, span_of(wanted), limits); });
    nb::list columns, bad;
    for (auto& column : found.columns)
        columns.append(nb::make_tuple(owned(std::move(column.valid)), owned(std::move(column.bytes)),
                                      owned(std::move(column.ends))));
    for (const auto& row : found.bad)
        bad.append(nb::make_tuple(row.line, row.start, row.end, static_cast<int>(row.problem), row.fields));
    return nb::make_tuple(columns, owned(std::move(found.lines)), owned(std::move(found.starts)),
                          owned(std::move(found.stops)), bad, found.rows, found.lines_read, found.consumed,
                          found.skipped, found.in_long_line);
}

// (fields, consumed, lines read), or None if the piece does not hold a complete header
nb::object split_csv_header(In<uint8_t> piece, bool last) {
    const auto header = without_gil([&] { return springtide::split_csv_header(span_of(piece), last); });
    if (!header.complete) return nb::none();
    nb::list fields;
    for (const auto& field : header.fields) fields.append(bytes_of(field));
    return nb::make_tuple(fields, header.consumed, header.lines_read);
}

}  // namespace

void register_csv_rows(nb::module_& m) {
    m.def("split_csv", &split_csv, exact("piece"), nb::arg("last"), nb::arg("in_long_line"), exact("wanted"),
          nb::arg("fields"), nb::arg("row_bytes"), nb::arg("rows"), nb::arg("bytes"));
    m.def("split_csv_header", &split_csv_header, exact("piece"), nb::arg("last"));
}
