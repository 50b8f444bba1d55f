#include "wire/csv_rows.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>

namespace springtide {
namespace {

struct Field {
    size_t begin, end;
    bool quoted, escaped;  // escaped: holds doubled quotes
};

enum class Outcome : uint8_t { row, bad, incomplete };

// Reads one row at a time into `fields`.
class RowReader {
public:
    RowReader(std::span<const uint8_t> bytes, bool last, size_t columns, size_t row_bytes)
        : bytes_(bytes), last_(last), columns_(columns), row_bytes_(row_bytes) {}

    std::vector<Field> fields;
    CsvProblem problem = CsvProblem::columns;
    size_t stop = 0, next = 0;  // end of the row without its line end; start of the next row

    Outcome read(size_t start) {
        fields.clear();
        const bool longer = bytes_.size() - start > row_bytes_;
        limit_ = longer ? start + row_bytes_ : bytes_.size();
        final_ = last_ || longer;
        size_t at = start;
        for (;;) {
            const std::optional<Outcome> failed = at < limit_ && bytes_[at] == '"' ? quoted(at) : plain(at);
            if (failed) return *failed;
            if (at < limit_ && bytes_[at] == ',') {
                ++at;
                continue;
            }
            return end_of_row(at);
        }
    }

    // After bad: reduces the row to its first physical line. Incomplete if the piece does not hold all of it.
    Outcome reduce(size_t start) {
        stop = next = line_end(start, limit_);
        if (!at_end_of_file(stop) && stop == limit_) {
            problem = CsvProblem::too_long;
            return final_ ? Outcome::bad : Outcome::incomplete;
        }
        return terminate(stop) ? Outcome::bad : Outcome::incomplete;
    }

private:
    Outcome bad(CsvProblem found) {
        problem = found;
        return Outcome::bad;
    }

    size_t line_end(size_t at, size_t limit) const {
        while (at < limit && bytes_[at] != '\n' && bytes_[at] != '\r') ++at;
        return at;
    }

    bool at_end_of_file(size_t at) const { return last_ && at == bytes_.size(); }

    // Sets `stop` and `next`. False if the piece ends within the line end.
    bool terminate(size_t at) {
        stop = next = at;
        if (at_end_of_file(at)) return true;
        next = at + 1;
        if (bytes_[at] != '\r') return true;
        if (next == bytes_.size()) return last_;  // a line feed may follow
        if (bytes_[next] == '\n') ++next;
        return true;
    }

    std::optional<Outcome> plain(size_t& at) {
        const size_t begin = at;
        while (at < limit_ && bytes_[at] != ',' && bytes_[at] != '\n' && bytes_[at] != '\r') ++at;
        fields.push_back({begin, at, false, false});
        return std::nullopt;
    }

    std::optional<Outcome> quoted(size_t& at) {
        Field field{at + 1, at + 1, true, false};
        for (size_t from = field.begin;;) {
            const void* found = from < limit_ ? std::memchr(&bytes_[from], '"', limit_ - from) : nullptr;
            if (!found) return final_ ? bad(CsvProblem::unclosed_quote) : Outcome::incomplete;
            field.end = static_cast<size_t>(static_cast<const uint8_t*>(found) - bytes_.data());
            if (field.end + 1 == limit_ && !final_) return Outcome::incomplete;
            if (field.end + 1 == limit_ || bytes_[field.end + 1] != '"') break;
            field.escaped = true;
            from = field.end + 2;
        }
        at = field.end + 1;
        fields.push_back(field);
        if (at < limit_ && bytes_[at] != ',' && bytes_[at] != '\n' && bytes_[at] != '\r')
            return bad(CsvProblem::text_after_quote);
        // A surplus field over several lines is a stray quote: going on would read the file again for every line.
        if (fields.size() > columns_ && line_end(field.begin, field.end) < field.end) return bad(CsvProblem::columns);
        return std::nullopt;
    }

    Outcome end_of_row(size_t at) {
        if (at == limit_ && !at_end_of_file(at)) return final_ ? bad(CsvProblem::too_long) : Outcome::incomplete;
        if (!terminate(at)) return Outcome::incomplete;
        const bool empty = fields.size() == 1 && !fields[0].quoted && fields[0].begin == fields[0].end;
        if (fields.size() != columns_ && !empty) return bad(CsvProblem::columns);
        return Outcome::row;
    }

    std::span<const uint8_t> bytes_;
    bool last_, final_ = false;  // final_: more bytes behind limit_ would change nothing
    size_t columns_, row_bytes_, limit_ = 0;
};

void append_value(std::span<const uint8_t> bytes, const Field& field, std::vector<uint8_t>& out) {
    const uint8_t* at = bytes.data() + field.begin;
    const uint8_t* const end = bytes.data() + field.end;
    if (!field.escaped) {
        out.insert(out.end(), at, end);
        return;
    }
    while (at < end) {
        out.push_back(*at);
        at += *at == '"' ? 2 : 1;
    }
}

void append_row(std::span<const uint8_t> bytes, const std::vector<Field>& fields, std::span<const int32_t> wanted,
                std::vector<CsvColumn>& columns) {
    for (size_t i = 0; i < wanted.size(); ++i) {
        const Field& field = fields[static_cast<size_t>(wanted[i])];
        CsvColumn& column = columns[i];
        append_value(bytes, field, column.bytes);
        column.valid.push_back(field.quoted || field.end > field.begin);
        column.ends.push_back(static_cast<int32_t>(column.bytes.size()));
    }
}

// Physical lines between two places.
int64_t count_lines(std::span<const uint8_t> bytes, size_t from, size_t to) {
    int64_t lines = 0;
    for (size_t at = from; at < to; ++at)
        lines += bytes[at] == '\n' || (bytes[at] == '\r' && !(at + 1 < to && bytes[at + 1] == '\n'));
    return lines;
}

// Skips the rest of a line that was refused as too long. False if the piece ends first.
bool skip_long_line(std::span<const uint8_t> piece, bool last, CsvRows& rows) {
    size_t at = 0;
    while (at < piece.size() && piece[at] != '\n' && piece[at] != '\r') ++at;
    const bool open_return = at + 1 == piece.size() && piece[at] == '\r' && !last;
    rows.in_long_line = at == piece.size() || open_return;
    if (!rows.in_long_line) {
        at += at + 1 < piece.size() && piece[at] == '\r' && piece[at + 1] == '\n' ? 2 : 1;
        ++rows.lines_read;
    }
    rows.consumed = rows.skipped = at;
    return !rows.in_long_line;
}

}  // namespace

CsvRows split_csv(std::span<const uint8_t> piece, bool last, bool in_long_line, std::span<const int32_t> wanted,
                  const CsvLimits& limits) {
    CsvRows rows;
    rows.columns.resize(wanted.size());
    if (in_long_line && !skip_long_line(piece, last, rows)) return rows;
    RowReader reader(piece, last, limits.columns, limits.row_bytes);
    const size_t most = std::min<size_t>(limits.bytes, std::numeric_limits<int32_t>::max() - limits.row_bytes);
    while (rows.consumed < piece.size() && static_cast<size_t>(rows.rows) < limits.rows &&
           rows.consumed - rows.skipped < most && !rows.in_long_line) {
        const size_t start = rows.consumed;
        Outcome outcome = reader.read(start);
        const auto fields = static_cast<int64_t>(reader.fields.size());
        if (outcome == Outcome::bad) outcome = reader.reduce(start);
        if (outcome == Outcome::incomplete) break;
        if (outcome == Outcome::row && reader.fields.size() == limits.columns &&
            (limits.columns > 1 || reader.stop > start)) {
            append_row(piece, reader.fields, wanted, rows.columns);
            rows.lines.push_back(rows.lines_read);
            rows.starts.push_back(static_cast<int64_t>(start));
            rows.stops.push_back(static_cast<int64_t>(reader.stop));
        } else if (outcome == Outcome::bad) {
            rows.in_long_line = reader.problem == CsvProblem::too_long;
            rows.bad.push_back({rows.lines_read, static_cast<int64_t>(start), static_cast<int64_t>(reader.stop),
                                reader.problem, fields});
        }
        ++rows.rows;
        rows.lines_read += count_lines(piece, start, reader.next);
        rows.consumed = reader.next;
    }
    return rows;
}

CsvHeader split_csv_header(std::span<const uint8_t> piece, bool last) {
    CsvHeader header;
    RowReader reader(piece, last, std::numeric_limits<size_t>::max(), piece.size() + 1);
    const Outcome outcome = reader.read(0);
    // Any number of fields is right here, which read() counts as a wrong one.
    header.complete = outcome == Outcome::bad && reader.problem == CsvProblem::columns;
    if (outcome == Outcome::row) header.complete = true;
    if (!header.complete) return header;
    for (const Field& field : reader.fields) append_value(piece, field, header.fields.emplace_back());
    header.consumed = reader.next;
    header.lines_read = count_lines(piece, 0, reader.next);
    return header;
}

}  // namespace springtide
