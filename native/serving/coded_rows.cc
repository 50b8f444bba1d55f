#include "serving/coded_rows.h"

#include <array>
#include <bit>
#include <cstring>
#include <span>
#include <utility>

#include "keys/key_order.h"
#include "quantizer/quantizer.h"
#include "wire/entropy.h"

namespace springtide {
namespace {

constexpr size_t kPrecisions = 4, kKinds = 3;
enum Kind : size_t { kDifference, kAbsolute, kNew };

unsigned bits_at(size_t precision) { return 4u << precision; }

// The low bits of a key gap that are not in a scale.
unsigned plain_bits(size_t keys) { return 64 - static_cast<unsigned>(std::bit_width(keys)); }

// The rows of one precision and kind.
struct Section {
    std::vector<uint64_t> keys;  // of new rows, else 0
    std::vector<uint32_t> handles;
    std::vector<const uint8_t*> payloads;

    size_t size() const { return handles.size(); }
};

using Sections = std::array<std::array<Section, kKinds>, kPrecisions>;

Sections sections_of(const DeltaRows& rows) {
    Sections sections;
    const uint8_t* payload = rows.payload;
    for (size_t i = 0; i < rows.known_count + rows.new_count; ++i) {
        const bool is_new = i >= rows.known_count;
        const size_t at = is_new ? i - rows.known_count : i;
        const Kind kind = is_new ? kNew : rows.relative[i] ? kDifference : kAbsolute;
        Section& section = sections[static_cast<unsigned>(std::countr_zero(rows.bits[i])) - 2][kind];
        section.keys.push_back(is_new ? rows.new_keys[at] : 0);
        section.handles.push_back(is_new ? rows.new_handles[at] : rows.handles[at]);
        section.payloads.push_back(payload);
        payload += payload_bytes(rows.bits[i], rows.dim);
    }
    return sections;
}

template <class T>
std::vector<T> in_order(const std::vector<T>& values, const std::vector<uint32_t>& order) {
    std::vector<T> sorted(values.size());
    for (size_t i = 0; i < order.size(); ++i) sorted[i] = values[order[i]];
    return sorted;
}

void sort_by(std::span<const uint64_t> ranks, Section& section) {
    const std::vector<uint32_t> order = ascending(ranks);
    section = {in_order(section.keys, order), in_order(section.handles, order), in_order(section.payloads, order)};
}

// By handle; new rows with the same one, which no sender has, by key.
void sort(Section& section, Kind kind) {
    if (kind == kNew) sort_by(section.keys, section);
    sort_by(std::vector<uint64_t>(section.handles.begin(), section.handles.end()), section);
}

// The stream of one table, in writing. `Reader` below mirrors it call by call.
class Writer {
public:
    explicit Writer(size_t dim) : dim_(dim) {}

    void counts(size_t removed, const Sections& sections) {
        Scale scale;
        stream_.put(static_cast<uint32_t>(removed), scale);
        for (const auto& precision : sections)
            for (const Section& section : precision) stream_.put(static_cast<uint32_t>(section.size()), scale);
    }

    void keys(std::span<const uint64_t> keys) {
        const unsigned plain = plain_bits(keys.size());
        Scale scale;
        for (uint64_t previous = 0; const uint64_t key : keys) {
            const uint64_t gap = key - previous;
            stream_.put(static_cast<uint32_t>(gap >> plain), scale);
            stream_.put_bits(gap & ((uint64_t{1} << plain) - 1), plain);
            previous = key;
        }
    }

    void section(const Section& section, unsigned bits, Kind kind) {
        if (kind == kNew) new_handles(section), key_runs(section.keys);
        else known_handles(section);
        if (bits == 32) return floats(section);
        if (kind != kDifference) exponents(section);
        if (bits == 16) mantissas<int16_t>(section);
        else mantissas<int8_t>(section);
    }

    void finish(std::vector<uint8_t>& coded) { stream_.finish(coded); }

private:
    void known_handles(const Section& section) {
        Scale scale;
        for (uint32_t previous = 0; const uint32_t handle : section.handles) {
            stream_.put(handle - previous, scale);
            previous = handle;
        }
    }

    void new_handles(const Section& section) {
        Scale scale;
        for (uint32_t next = 0; const uint32_t handle : section.handles) {
            stream_.put(zigzag(static_cast<int32_t>(handle - next)), scale);
            next = handle + 1;
        }
    }

    // Keys that serving got at once have consecutive handles in the order of the keys.
    void key_runs(std::span<const uint64_t> all) {
        if (all.size() < 2) return keys(all);
        std::vector<size_t> starts = {0};
        for (size_t i = 1; i < all.size(); ++i)
            if (all[i] < all[i - 1]) starts.push_back(i);
        Scale scale, lengths;
        stream_.put(static_cast<uint32_t>(starts.size() - 1), scale);
        for (size_t i = 1; i < starts.size(); ++i)
            stream_.put(static_cast<uint32_t>(starts[i] - starts[i - 1] - 1), lengths);
        starts.push_back(all.size());
        for (size_t i = 1; i < starts.size(); ++i) keys(all.subspan(starts[i - 1], starts[i] - starts[i - 1]));
    }

    void exponents(const Section& section) {
        Scale scale;
        for (int previous = 0; const uint8_t* payload : section.payloads) {
            const auto exponent = static_cast<int8_t>(*payload);
            stream_.put(zigzag(exponent - previous), scale);
            previous = exponent;
        }
    }

    template <class Mantissa>
    void mantissas(const Section& section) {
        Scale scale;
        for (const uint8_t* payload : section.payloads)
            for (size_t i = 0; i < dim_; ++i) {
                Mantissa mantissa;
                std::memcpy(&mantissa, payload + 1 + i * sizeof(Mantissa), sizeof(Mantissa));
                stream_.put(zigzag(mantissa), scale);
            }
    }

    void floats(const Section& section) {
        for (const uint8_t* payload : section.payloads)
            for (size_t i = 0; i < dim_; ++i) {
                uint32_t weight;
                std::memcpy(&weight, payload + i * sizeof(weight), sizeof(weight));
                stream_.put_bits(weight, 32);
            }
    }

    const size_t dim_;
    EntropyEncoder stream_;
};

// Whether a stream of `size` bytes can hold what it announces. All sums are below 2^62.
bool fits(const RowCounts& counts, size_t size, size_t dim) {
    uint64_t integers = counts.removed, bits = uint64_t{counts.removed} * plain_bits(counts.removed);
    for (size_t precision = 0; precision < kPrecisions; ++precision)
        for (size_t kind = 0; kind < kKinds; ++kind) {
            const uint64_t rows = counts.rows[precision][kind];
            integers += rows;
            if (kind == kNew) integers += rows, bits += rows * plain_bits(rows);
            if (bits_at(precision) == 32) {
                bits += 32 * rows * dim;
                continue;
            }
            if (kind != kDifference) integers += rows;
            integers += rows * dim;
        }
    return integers / kMostPerBit + bits <= 8 * uint64_t{size};
}

// Reserves exactly what is announced.
void reserve(const RowCounts& counts, size_t dim, DecodedRows& rows) {
    size_t known = 0, fresh = 0, bytes = 0;
    for (size_t precision = 0; precision < kPrecisions; ++precision) {
        const auto& [differences, absolute, added] = counts.rows[precision];
        known += size_t{differences} + absolute;
        fresh += added;
        bytes += (size_t{differences} + absolute + added) * payload_bytes(bits_at(precision), dim);
    }
    rows.removed.reserve(counts.removed);
    rows.handles.reserve(known);
    rows.relative.reserve(known);
    rows.new_keys.reserve(fresh);
    rows.new_handles.reserve(fresh);
    rows.bits.reserve(known + fresh);
    rows.payload.reserve(bytes);
}

// Reads what `Writer` writes.
class Reader {
public:
    Reader(const uint8_t* coded, size_t size, size_t dim) : dim_(dim), stream_(coded, coded + size) {}

    RowCounts counts() {
        RowCounts counts;
        Scale scale;
        counts.removed = stream_.take(scale);
        for (auto& precision : counts.rows)
            for (uint32_t& count : precision) count = stream_.take(scale);
        return stream_.good() ? counts : RowCounts{};
    }

    void keys(uint32_t count, std::vector<uint64_t>& keys) {
        const unsigned plain = plain_bits(count);
        Scale scale;
        uint64_t key = 0;
        for (uint32_t i = 0; i < count && stream_.good(); ++i) {
            const uint64_t gap = static_cast<uint64_t>(stream_.take(scale)) << plain | stream_.take_bits(plain);
            overflowed_ |= __builtin_add_overflow(key, gap, &key);
            keys.push_back(key);
        }
    }

    void key_runs(uint32_t count, std::vector<uint64_t>& all) {
        if (count < 2) return keys(count, all);
        Scale scale, lengths_scale;
        const uint32_t others = stream_.take(scale);  // but the last
        std::vector<uint32_t> lengths;
        uint64_t left = count;
        overflowed_ |= others >= left;
        for (uint32_t i = 0; i < others && good(); ++i) {
            lengths.push_back(stream_.take(lengths_scale) + 1);
            overflowed_ |= lengths.back() == 0 || lengths.back() >= left;
            left -= lengths.back();
        }
        lengths.push_back(static_cast<uint32_t>(left));
        for (const uint32_t length : lengths)
            if (good()) keys(length, all);
    }

    // Handles and keys, which must be in the order in which they are written.
    void new_rows(uint32_t count, DecodedRows& rows) {
        const size_t begin = rows.new_keys.size();
        new_handles(count, rows.new_handles);
        key_runs(count, rows.new_keys);
        const auto at = [&rows](size_t i) { return std::pair(rows.new_handles[i], rows.new_keys[i]); };
        for (size_t i = begin + 1; good() && i < rows.new_keys.size(); ++i) overflowed_ |= at(i) < at(i - 1);
    }

    void known_handles(uint32_t count, std::vector<uint32_t>& handles) {
        Scale scale;
        uint32_t handle = 0;
        for (uint32_t i = 0; i < count && stream_.good(); ++i) {
            overflowed_ |= __builtin_add_overflow(handle, stream_.take(scale), &handle);
            handles.push_back(handle);
        }
    }

    void new_handles(uint32_t count, std::vector<uint32_t>& handles) {
        Scale scale;
        uint32_t next = 0;
        for (uint32_t i = 0; i < count && stream_.good(); ++i) {
            handles.push_back(next + static_cast<uint32_t>(unzigzag(stream_.take(scale))));
            next = handles.back() + 1;
        }
    }

    // The payloads of `count` rows, appended.
    void payloads(uint32_t count, unsigned bits, Kind kind, std::vector<uint8_t>& payload) {
        if (bits == 32) return floats(count, payload);
        std::vector<int8_t> exponents;
        if (kind != kDifference) read_exponents(count, exponents);
        if (bits == 16) mantissas<int16_t>(count, exponents, payload);
        else mantissas<int8_t>(count, exponents, payload);
    }

    bool good() const { return stream_.good() && !overflowed_; }
    bool finished() const { return stream_.finished() && !overflowed_; }

private:
    void read_exponents(uint32_t count, std::vector<int8_t>& exponents) {
        Scale scale;
        int exponent = 0;
        for (uint32_t i = 0; i < count && stream_.good(); ++i) {
            exponent += unzigzag(stream_.take(scale) & 0x1ff);
            overflowed_ |= exponent != static_cast<int8_t>(exponent);
            exponent = static_cast<int8_t>(exponent);
            exponents.push_back(static_cast<int8_t>(exponent));
        }
    }

    template <class Mantissa>
    void mantissas(uint32_t count, const std::vector<int8_t>& exponents, std::vector<uint8_t>& payload) {
        constexpr uint32_t kMost = sizeof(Mantissa) == 1 ? 0xff : 0xffff;
        const size_t bytes = 1 + dim_ * sizeof(Mantissa);
        EntropyDecoder stream = stream_;  // what is written may be part of *this, of a local copy it cannot
        uint32_t largest = 0;
        Scale scale;
        for (uint32_t row = 0; row < count && stream.good(); ++row) {
            const size_t at = payload.size();
            payload.resize(at + bytes);
            uint8_t* out = payload.data() + at;
            *out++ = exponents.empty() ? uint8_t{0} : static_cast<uint8_t>(exponents[row]);
            for (size_t i = 0; i < dim_; ++i, out += sizeof(Mantissa)) {
                const uint32_t value = stream.take(scale);
                largest |= value;
                const auto mantissa = static_cast<Mantissa>(unzigzag(value));
                std::memcpy(out, &mantissa, sizeof(Mantissa));
            }
        }
        overflowed_ |= largest > kMost;
        stream_ = stream;
    }

    void floats(uint32_t count, std::vector<uint8_t>& payload) {
        for (uint32_t row = 0; row < count && stream_.good(); ++row)
            for (size_t i = 0; i < dim_; ++i) {
                const auto weight = static_cast<uint32_t>(stream_.take_bits(32));
                const size_t at = payload.size();
                payload.resize(at + sizeof(weight));
                std::memcpy(payload.data() + at, &weight, sizeof(weight));
            }
    }

    const size_t dim_;
    EntropyDecoder stream_;
    bool overflowed_ = false;
};

}  // namespace

std::vector<uint8_t> code_rows(const DeltaRows& rows) {
    std::vector<uint8_t> coded;
    if (rows.known_count + rows.new_count + rows.removed_count == 0) return coded;
    Sections sections = sections_of(rows);
    Writer writer(rows.dim);
    writer.counts(rows.removed_count, sections);
    std::vector<uint64_t> removed(rows.removed, rows.removed + rows.removed_count);
    writer.keys(in_order(removed, ascending(removed)));
    for (size_t precision = 0; precision < kPrecisions; ++precision)
        for (const Kind kind : {kDifference, kAbsolute, kNew}) {
            Section& section = sections[precision][kind];
            sort(section, kind);
            writer.section(section, bits_at(precision), kind);
        }
    writer.finish(coded);
    return coded;
}

RowCounts announced_rows(const uint8_t* coded, size_t size) {
    return size == 0 ? RowCounts{} : Reader(coded, size, 1).counts();
}

const char* decode_rows(const uint8_t* coded, size_t size, size_t dim, DecodedRows& rows) {
    rows = {};
    if (size == 0) return nullptr;
    Reader reader(coded, size, dim);
    const RowCounts announced = reader.counts();
    if (!reader.good()) return "end too early or have a number out of range";
    if (!fits(announced, size, dim)) return "announce more rows than they can hold";
    reserve(announced, dim, rows);
    const auto& counts = announced.rows;
    reader.keys(announced.removed, rows.removed);
    std::vector<uint8_t> new_bits, new_payload;
    for (size_t precision = 0; precision < kPrecisions; ++precision) {
        const unsigned bits = bits_at(precision);
        if (bits == 32 && counts[precision][kDifference]) return "have a difference of 32 bits";
        for (const Kind kind : {kDifference, kAbsolute}) {
            const uint32_t count = counts[precision][kind];
            reader.known_handles(count, rows.handles);
            reader.payloads(count, bits, kind, rows.payload);
            if (!reader.good()) return "end too early or have a number out of range";
            rows.relative.resize(rows.handles.size(), kind == kDifference);
            rows.bits.resize(rows.handles.size(), static_cast<uint8_t>(bits));
        }
        reader.new_rows(counts[precision][kNew], rows);
        reader.payloads(counts[precision][kNew], bits, kNew, new_payload);
        if (!reader.good()) return "end too early or have a number out of range";
        new_bits.resize(rows.new_keys.size(), static_cast<uint8_t>(bits));
    }
    if (!reader.finished()) return "go on after the last row or have a number out of range";
    rows.bits.insert(rows.bits.end(), new_bits.begin(), new_bits.end());
    rows.payload.insert(rows.payload.end(), new_payload.begin(), new_payload.end());
    return nullptr;
}

std::vector<uint8_t> reorder_payload(const uint8_t* payload, const uint8_t* bits, const int64_t* order, size_t n,
                                     size_t dim) {
    std::vector<size_t> starts(n + 1, 0);
    for (size_t i = 0; i < n; ++i) starts[i + 1] = starts[i] + payload_bytes(bits[i], dim);
    std::vector<uint8_t> reordered(starts[n]);
    uint8_t* at = reordered.data();
    for (size_t i = 0; i < n; ++i) {
        const auto row = static_cast<size_t>(order[i]);
        at = std::copy(payload + starts[row], payload + starts[row + 1], at);
    }
    return reordered;
}

}  // namespace springtide
