#include "wire/avro_events.h"

#include <cstring>

#include "wire/varint.h"

namespace springtide {
namespace {

constexpr size_t kFrameBytes = 5;
constexpr int64_t kNull = 0, kValue = 1;  // branches of the union

bool is_continuation(uint8_t byte) { return (byte & 0xC0) == 0x80; }

// The length in bytes of the UTF-8 character at `at`; 0 if it is ill-formed (Unicode 15, table 3-7).
size_t character_bytes(const uint8_t* at, size_t left) {
    const uint8_t first = at[0];
    if (first < 0x80) return 1;
    if (first < 0xC2 || first > 0xF4) return 0;
    const size_t size = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    if (left < size) return 0;
    const uint8_t low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
    const uint8_t high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
    if (at[1] < low || at[1] > high) return 0;
    for (size_t i = 2; i < size; ++i)
        if (!is_continuation(at[i])) return 0;
    return size;
}

int32_t size_of(const std::vector<uint8_t>& bytes) { return static_cast<int32_t>(bytes.size()); }

void read_string(ByteReader& reader, AvroColumn& out) {
    const int64_t size = reader.read_varint();
    const uint8_t* text = reader.read(size);
    if (!reader.good) return;
    reader.good = is_utf8(text, static_cast<size_t>(size));
    out.bytes.insert(out.bytes.end(), text, text + size);
}

void read_double(ByteReader& reader, AvroColumn& out) {
    const uint8_t* bytes = reader.read(8);
    if (!reader.good) return;
    uint64_t word = 0;
    for (int i = 7; i >= 0; --i) word = word << 8 | bytes[i];  // little endian
    out.words.push_back(static_cast<int64_t>(word));
}

void read_boolean(ByteReader& reader, AvroColumn& out) {
    const uint8_t* byte = reader.read(1);
    if (!reader.good) return;
    reader.good = *byte <= 1;
    out.bytes.push_back(*byte);
}

void read_one(AvroKind kind, ByteReader& reader, AvroColumn& out) {
    switch (kind) {
        case AvroKind::string: return read_string(reader, out);
        case AvroKind::integer: return out.words.push_back(reader.read_varint());
        case AvroKind::real: return read_double(reader, out);
        case AvroKind::boolean: return read_boolean(reader, out);
    }
}

// Blocks of items up to an empty one. A negative count means a sized block, which is not decoded.
void read_list(AvroKind kind, ByteReader& reader, AvroColumn& out) {
    for (int64_t count = reader.read_varint(); reader.good && count != 0; count = reader.read_varint()) {
        if (count < 0 || static_cast<uint64_t>(count) > reader.left()) reader.good = false;
        for (; reader.good && count > 0; --count) {
            read_one(kind, reader, out);
            if (kind == AvroKind::string) out.item_ends.push_back(size_of(out.bytes));
        }
    }
}

int32_t items(AvroKind kind, const AvroColumn& column) {
    if (kind == AvroKind::string) return static_cast<int32_t>(column.item_ends.size());
    return kind == AvroKind::boolean ? size_of(column.bytes) : static_cast<int32_t>(column.words.size());
}

void add_null(AvroField field, AvroColumn& out) {
    if (field.list || field.kind == AvroKind::string) return;
    if (field.kind == AvroKind::boolean)
        out.bytes.push_back(0);
    else
        out.words.push_back(0);
}

void read_field(AvroField field, ByteReader& reader, AvroColumn& out) {
    const int64_t branch = reader.read_varint();
    if (branch == kNull)
        add_null(field, out);
    else if (branch != kValue)
        reader.good = false;
    else if (field.list)
        read_list(field.kind, reader, out);
    else
        read_one(field.kind, reader, out);
    out.valid.push_back(branch == kValue);
    if (field.list)
        out.ends.push_back(items(field.kind, out));
    else if (field.kind == AvroKind::string)
        out.ends.push_back(size_of(out.bytes));
}

template <typename T>
size_t last_end(const std::vector<T>& ends) {
    return ends.empty() ? 0 : static_cast<size_t>(ends.back());
}

// Removes the values of an undecoded row.
void truncate(size_t rows, AvroField field, AvroColumn& out) {
    out.valid.resize(rows);
    if (!field.list && field.kind != AvroKind::string) {
        if (field.kind == AvroKind::boolean)
            out.bytes.resize(rows);
        else
            out.words.resize(rows);
        return;
    }
    out.ends.resize(rows);
    size_t size = last_end(out.ends);
    if (field.list && field.kind == AvroKind::string) {
        out.item_ends.resize(size);
        size = last_end(out.item_ends);
    }
    if (field.kind == AvroKind::string || field.kind == AvroKind::boolean)
        out.bytes.resize(size);
    else
        out.words.resize(size);
}

bool has_frame(ByteReader& reader, uint32_t schema_id) {
    const uint8_t* frame = reader.read(kFrameBytes);
    if (frame == nullptr || frame[0] != 0) return false;
    const uint32_t found = static_cast<uint32_t>(frame[1]) << 24 | static_cast<uint32_t>(frame[2]) << 16 |
                           static_cast<uint32_t>(frame[3]) << 8 | frame[4];
    return found == schema_id;
}

bool read_row(std::span<const AvroField> fields, uint32_t schema_id, ByteReader reader, AvroEvents& out) {
    if (!has_frame(reader, schema_id)) return false;
    const int64_t at_ms = reader.read_varint();
    for (size_t i = 0; i < fields.size() && reader.good; ++i) read_field(fields[i], reader, out.columns[i]);
    if (!reader.good || reader.at != reader.end) return false;
    out.times_ms.push_back(at_ms);
    return true;
}

}  // namespace

bool is_utf8(const uint8_t* bytes, size_t n) {
    size_t i = 0;
    while (i < n) {
        uint64_t eight;
        if (n - i >= 8 && (std::memcpy(&eight, bytes + i, 8), (eight & 0x8080808080808080ULL) == 0)) {
            i += 8;
            continue;
        }
        const size_t size = character_bytes(bytes + i, n - i);
        if (size == 0) return false;
        i += size;
    }
    return true;
}

AvroEvents decode_events(std::span<const AvroField> fields, uint32_t schema_id, std::span<const int32_t> offsets,
                         const uint8_t* values) {
    AvroEvents out;
    out.columns.resize(fields.size());
    const size_t rows = offsets.empty() ? 0 : offsets.size() - 1;
    out.times_ms.reserve(rows);
    for (size_t i = 0; i < rows; ++i) {
        const ByteReader reader{values + offsets[i], values + offsets[i + 1]};
        if (read_row(fields, schema_id, reader, out)) continue;
        out.undecoded.push_back(static_cast<int64_t>(i));
        for (size_t f = 0; f < fields.size(); ++f) truncate(out.times_ms.size(), fields[f], out.columns[f]);
    }
    return out;
}

}  // namespace springtide
