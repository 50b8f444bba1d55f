// Splits CSV (RFC 4180: separator comma, quote ", any line end) into columns, piece by piece of a file.
//
// A row that is no row of the file costs its first physical line only, and reading continues behind that line: a quote
// that is never closed does not take the rest of the file with it. What a row is depends on the at most `row_bytes`
// behind its start and never on where a piece ends. Pure, thread-safe, linear time; the bytes are not trusted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace springtide {

enum class CsvProblem : uint8_t { columns, unclosed_quote, text_after_quote, too_long };

struct CsvLimits {
    size_t columns;    // fields of a row
    size_t row_bytes;  // longest row with its line end
    size_t rows;       // rows to read at most, empty lines and bad rows included
    size_t bytes;      // reading stops behind the row that reaches this; skipped ones do not count
};

// The value of row i ends at ends[i]; it is null if valid[i] is 0: nothing between separators, not even quotes.
struct CsvColumn {
    std::vector<uint8_t> bytes, valid;
    std::vector<int32_t> ends;
};

struct CsvBadRow {
    int64_t line, start, end;  // physical line, counted from 0; its bytes, without the line end
    CsvProblem problem;
    int64_t fields;  // found up to the problem
};

struct CsvRows {
    std::vector<CsvColumn> columns;             // the wanted fields of the good rows
    std::vector<int64_t> lines, starts, stops;  // per good row: physical line, counted from 0; bytes without line end
    std::vector<CsvBadRow> bad;
    int64_t rows = 0;                           // good, bad and empty ones
    int64_t lines_read = 0;                     // physical lines
    size_t consumed = 0;                        // bytes; what follows begins the next piece
    size_t skipped = 0;                         // of these, bytes at the start that belong to a line refused before
    bool in_long_line = false;  // the next piece begins inside a line that was refused as too long
};

// Reads the rows that `piece` holds completely; `last` if the file ends with it. `wanted` are indices of fields,
// ascending. A piece of more than row_bytes, or the last one, is never left unread altogether.
CsvRows split_csv(std::span<const uint8_t> piece, bool last, bool in_long_line, std::span<const int32_t> wanted,
                  const CsvLimits& limits);

// The fields of the first row, however many there are.
struct CsvHeader {
    std::vector<std::vector<uint8_t>> fields;
    size_t consumed = 0;
    int64_t lines_read = 0;
    bool complete = false;  // false: the piece does not hold all of it, or its quotes are wrong
};
CsvHeader split_csv_header(std::span<const uint8_t> piece, bool last);

}  // namespace springtide
