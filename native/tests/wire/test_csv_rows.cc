// CSV without Python: rows, bad rows, and the same result however a file is cut into pieces.
#include "wire/csv_rows.h"

#include <string>
#include <vector>

#include "tests/expect.h"

namespace {

using namespace springtide;

struct Found {
    std::string text;  // per row: its line, then its values; "bad" and the problem for a bad row
    bool operator==(const Found&) const = default;
};

std::string values_of(const CsvRows& rows, size_t i) {
    std::string text = std::to_string(rows.lines[i]);
    for (const CsvColumn& column : rows.columns) {
        const int32_t begin = i == 0 ? 0 : column.ends[i - 1];
        const std::string value(column.bytes.begin() + begin, column.bytes.begin() + column.ends[i]);
        text += column.valid[i] ? "|" + value : "|-";
    }
    return text + ";";
}

// Reads a file of 2 columns in pieces that grow by `step` bytes.
std::vector<std::string> read(const std::string& file, size_t step, size_t row_bytes = 64) {
    const std::vector<int32_t> wanted{0, 1};
    std::vector<std::string> good, bad;
    std::vector<uint8_t> piece;
    size_t read_to = 0;
    int64_t line = 0;
    bool in_long_line = false;
    for (;;) {
        while (piece.size() <= row_bytes && read_to < file.size()) {
            const size_t end = std::min(read_to + step, file.size());
            piece.insert(piece.end(), file.begin() + read_to, file.begin() + end);
            read_to = end;
        }
        if (piece.empty()) break;
        const std::vector<uint8_t> exact(piece);
        CsvRows rows =
            split_csv(exact, read_to == file.size(), in_long_line, wanted, {2, row_bytes, 1000, size_t{1} << 20});
        expect(rows.consumed > 0, "progress");
        for (int64_t& at : rows.lines) at += line;
        for (size_t i = 0; i < rows.lines.size(); ++i) good.push_back(values_of(rows, i));
        for (const CsvBadRow& row : rows.bad)
            bad.push_back(std::to_string(row.line + line) + "!" + std::to_string(static_cast<int>(row.problem)) + ":" +
                          file.substr(read_to - piece.size() + row.start, row.end - row.start) + ";");
        line += rows.lines_read;
        in_long_line = rows.in_long_line;
        piece.erase(piece.begin(), piece.begin() + rows.consumed);
    }
    good.insert(good.end(), bad.begin(), bad.end());
    return good;
}

void expect_rows(const std::string& file, const std::vector<std::string>& wanted) {
    for (size_t step = 1; step <= file.size() + 1; ++step) expect(read(file, step) == wanted, file.c_str());
}

void rows_of_every_form() {
    expect_rows("a,b\n1,2", {"0|a|b;", "1|1|2;"});
    expect_rows("a,\r\n,\"\"\r,2\n", {"0|a|-;", "1|-|;", "2|-|2;"});
    expect_rows("\"a,\n\"\"\",b\nc,d\n", {"0|a,\n\"|b;", "2|c|d;"});
    expect_rows("\n\na,b\n\n", {"2|a|b;"});
    expect_rows("5\" disk,b\"\"\n", {"0|5\" disk|b\"\";"});
}

void bad_rows_cost_their_line() {
    expect_rows("a\nb,c\nd,e,f\n", {"1|b|c;", "0!0:a;", "2!0:d,e,f;"});
    expect_rows("\"a,b\nc,d\n", {"1|c|d;", "0!1:\"a,b;"});
    expect_rows("\"a\"x,b\nc,d\n", {"1|c|d;", "0!2:\"a\"x,b;"});
    expect_rows("\"a,b\nc,\"d\"\n", {"1|c|d;", "0!2:\"a,b;"});
}

void a_long_line_is_skipped() {
    const std::string x(200, 'x');
    expect_rows("a," + x + "\r\nc,d\n", {"1|c|d;", "0!3:a," + x.substr(0, 62) + ";"});
    expect_rows("a," + x, {"0!3:a," + x.substr(0, 62) + ";"});
    expect_rows("\"" + x + "\n\",b\nc,d", {"2|c|d;", "0!3:\"" + x.substr(0, 63) + ";", "1!1:\",b;"});
}

void a_header_may_have_any_number_of_fields() {
    const std::string text = "a,\"b\r\n\",\xFF\r\n1,2";
    const CsvHeader header = split_csv_header({reinterpret_cast<const uint8_t*>(text.data()), text.size()}, true);
    expect(header.complete && header.fields.size() == 3 && header.consumed == 11 && header.lines_read == 2, "header");
    expect(!split_csv_header({reinterpret_cast<const uint8_t*>("\"a"), 2}, true).complete, "unclosed");
}

}  // namespace

int main() {
    rows_of_every_form();
    bad_rows_cost_their_line();
    a_long_line_is_skipped();
    a_header_may_have_any_number_of_fields();
}
