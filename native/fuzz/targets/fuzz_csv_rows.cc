// Arbitrary bytes as CSV, read at once and in two pieces: the same rows, every byte consumed once.
#include "wire/csv_rows.h"

#include "fuzz/input.h"

namespace {

constexpr size_t kRowBytes = 24;

struct Read {
    std::vector<std::vector<uint8_t>> columns;
    std::vector<int64_t> lines, bad;
    bool operator==(const Read&) const = default;
};

// Pieces of `first` bytes, then of the rest; as the caller of split_csv does, a piece exceeds kRowBytes if the file does.
Read read(const std::vector<uint8_t>& file, size_t first) {
    const std::vector<int32_t> wanted{0, 2};
    Read all;
    all.columns.resize(2);
    size_t at = 0;
    int64_t line = 0;
    bool in_long_line = false;
    while (at < file.size()) {
        const size_t left = file.size() - at;
        const size_t size = std::min(left, std::max(first, kRowBytes + 1));
        const std::vector<uint8_t> piece(file.begin() + at, file.begin() + at + size);
        const auto rows = springtide::split_csv(piece, size == left, in_long_line, wanted, {3, kRowBytes, 7, 1000});
        must(rows.consumed > 0 && rows.consumed <= size, "progress");
        for (size_t c = 0; c < 2; ++c) {
            must(rows.columns[c].ends.size() == rows.lines.size(), "a value for every row");
            must(rows.lines.empty() || rows.columns[c].bytes.size() == size_t(rows.columns[c].ends.back()), "its bytes");
            all.columns[c].insert(all.columns[c].end(), rows.columns[c].bytes.begin(), rows.columns[c].bytes.end());
        }
        for (int64_t found : rows.lines) all.lines.push_back(found + line);
        for (const auto& row : rows.bad) {
            must(row.start <= row.end && size_t(row.end) <= rows.consumed, "a bad row within the piece");
            all.bad.push_back(row.line + line);
        }
        at += rows.consumed;
        line += rows.lines_read;
        in_long_line = rows.in_long_line;
    }
    return all;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
    Input input(bytes, size);
    const size_t first = input.take<uint8_t>();
    std::vector<uint8_t> file;
    // Bytes that mean something in CSV are frequent.
    while (!input.empty() && file.size() < 400) {
        const auto byte = input.take<uint8_t>();
        file.push_back(byte < 128 ? "\",\n\r\"\",ax"[byte % 9] : byte);
    }
    must(read(file, first) == read(file, file.size()), "the same rows in pieces");
    (void)springtide::split_csv_header(file, true);
    return 0;
}
