#include "wire/avro_events.h"

#include <cstring>

#include "wire/varint.h"

namespace springtide {
namespace {

constexpr size_t kFrameBytes = 5;
constexpr int64_t kNull = 0, kValue = 1;  // branches of the union

bool is_continuation(uint8_t byte) { return (byte & 0xC0) == 0x80; }

// How many bytes the character at `at` has, 0 where it is none (Unicode 15, table 3-7).
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

void take_text(Bytes& bytes, AvroColumn& out) {
    const int64_t size = bytes.take_varint();
    const uint8_t* text = bytes.take(size);
    if (!bytes.good) return;
    bytes.good = is_utf8(text, static_cast<size_t>(size));
    out.bytes.insert(out.bytes.end(), text, text + size);
}

void take_number(Bytes& bytes, AvroColumn& out) {
    const uint8_t* found = bytes.take(8);
    if (!bytes.good) return;
    uint64_t word = 0;
    for (int i = 7; i >= 0; --i) word = word << 8 | found[i];  // little endian, on any machine
    out.words.push_back(static_cast<int64_t>(word));
}

void take_truth(Bytes& bytes, AvroColumn& out) {
    const uint8_t* found = bytes.take(1);
    if (!bytes.good) return;
    bytes.good = *found <= 1;
    out.bytes.push_back(*found);
}

void take_one(AvroKind kind, Bytes& bytes, AvroColumn& out) {
    switch (kind) {
        case AvroKind::text: return take_text(bytes, out);
        case AvroKind::integer: return out.words.push_back(bytes.take_varint());
        case AvroKind::number: return take_number(bytes, out);
        case AvroKind::truth: return take_truth(bytes, out);
    }
}

// Blocks of items until an empty one. A count below 0 announces the block's size: declined.
void take_list(AvroKind kind, Bytes& bytes, AvroColumn& out) {
    for (int64_t count = bytes.take_varint(); bytes.good && count != 0; count = bytes.take_varint()) {
        if (count < 0 || static_cast<uint64_t>(count) > bytes.left()) bytes.good = false;
        for (; bytes.good && count > 0; --count) {
            take_one(kind, bytes, out);
            if (kind == AvroKind::text) out.item_ends.push_back(size_of(out.bytes));
        }
    }
}

int32_t items(AvroKind kind, const AvroColumn& column) {
    if (kind == AvroKind::text) return static_cast<int32_t>(column.item_ends.size());
    return kind == AvroKind::truth ? size_of(column.bytes) : static_cast<int32_t>(column.words.size());
}

void add_null(AvroField field, AvroColumn& out) {
    if (field.list || field.kind == AvroKind::text) return;
    if (field.kind == AvroKind::truth)
        out.bytes.push_back(0);
    else
        out.words.push_back(0);
}

void take_field(AvroField field, Bytes& bytes, AvroColumn& out) {
    const int64_t branch = bytes.take_varint();
    if (branch == kNull)
        add_null(field, out);
    else if (branch != kValue)
        bytes.good = false;
    else if (field.list)
        take_list(field.kind, bytes, out);
    else
        take_one(field.kind, bytes, out);
    out.valid.push_back(branch == kValue);
    if (field.list)
        out.ends.push_back(items(field.kind, out));
    else if (field.kind == AvroKind::text)
        out.ends.push_back(size_of(out.bytes));
}

template <typename T>
size_t last_or_none(const std::vector<T>& ends) {
    return ends.empty() ? 0 : static_cast<size_t>(ends.back());
}

// Takes back what a declined row left behind.
void cut_to(size_t rows, AvroField field, AvroColumn& out) {
    out.valid.resize(rows);
    if (!field.list && field.kind != AvroKind::text) {
        if (field.kind == AvroKind::truth)
            out.bytes.resize(rows);
        else
            out.words.resize(rows);
        return;
    }
    out.ends.resize(rows);
    size_t held = last_or_none(out.ends);
    if (field.list && field.kind == AvroKind::text) {
        out.item_ends.resize(held);
        held = last_or_none(out.item_ends);
    }
    if (field.kind == AvroKind::text || field.kind == AvroKind::truth)
        out.bytes.resize(held);
    else
        out.words.resize(held);
}

bool frame_is(Bytes& bytes, uint32_t schema_id) {
    const uint8_t* frame = bytes.take(kFrameBytes);
    if (frame == nullptr || frame[0] != 0) return false;
    const uint32_t found = static_cast<uint32_t>(frame[1]) << 24 | static_cast<uint32_t>(frame[2]) << 16 |
                           static_cast<uint32_t>(frame[3]) << 8 | frame[4];
    return found == schema_id;
}

bool take_row(std::span<const AvroField> fields, uint32_t schema_id, Bytes bytes, AvroEvents& out) {
    if (!frame_is(bytes, schema_id)) return false;
    const int64_t at = bytes.take_varint();
    for (size_t i = 0; i < fields.size() && bytes.good; ++i) take_field(fields[i], bytes, out.columns[i]);
    if (!bytes.good || bytes.at != bytes.end) return false;
    out.times.push_back(at);
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
    out.times.reserve(rows);
    for (size_t i = 0; i < rows; ++i) {
        const Bytes bytes{values + offsets[i], values + offsets[i + 1]};
        if (take_row(fields, schema_id, bytes, out)) continue;
        out.declined.push_back(static_cast<int64_t>(i));
        for (size_t f = 0; f < fields.size(); ++f) cut_to(out.times.size(), fields[f], out.columns[f]);
    }
    return out;
}

}  // namespace springtide
