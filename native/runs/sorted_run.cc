#include "runs/sorted_run.h"

#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

#include "keys/xxh64.h"

namespace springtide {
namespace {

constexpr size_t kCountBytes = sizeof(uint32_t);
constexpr size_t kEntryBytes = sizeof(uint64_t) + sizeof(uint16_t);

template <typename T>
T read(const uint8_t* at) {
    T value;
    std::memcpy(&value, at, sizeof(value));
    return value;
}

[[noreturn]] void reject(const BlockEntry& block, const std::string& what) {
    throw std::invalid_argument("block at " + std::to_string(block.offset) + ", from key " +
                                std::to_string(block.first_key) + ": " + what);
}

}  // namespace

uint8_t* RunWriter::put(uint64_t key, size_t length) {
    if (length > kMaxValueBytes)
        throw std::invalid_argument("value of key " + std::to_string(key) + ": got " + std::to_string(length) +
                                    " bytes, wanted at most " + std::to_string(kMaxValueBytes));
    begin(key, static_cast<uint16_t>(length));
    if (value_bytes_ + length > values_.size()) values_.resize(2 * (value_bytes_ + length));
    value_bytes_ += length;
    return values_.data() + value_bytes_ - length;
}

void RunWriter::reserve(size_t entries, size_t value_bytes) {
    const size_t bytes = entries * kEntryBytes + value_bytes, blocks = bytes / block_bytes_ + 1;
    run_.bytes.reserve(bytes + blocks * kCountBytes);
    run_.blocks.reserve(blocks);
}

void RunWriter::begin(uint64_t key, uint16_t length) {
    if (!keys_.empty() && key <= keys_.back())
        throw std::invalid_argument("keys must ascend: got " + std::to_string(key) + " after " +
                                    std::to_string(keys_.back()));
    const size_t bytes = kCountBytes + keys_.size() * kEntryBytes + value_bytes_;
    if (!keys_.empty() && bytes >= block_bytes_) close_block();
    keys_.push_back(key);
    lengths_.push_back(length);
}

void RunWriter::close_block() {
    const auto count = static_cast<uint32_t>(keys_.size());
    const size_t bytes = kCountBytes + count * kEntryBytes + value_bytes_, start = run_.bytes.size();
    run_.bytes.resize(start + bytes);
    uint8_t* at = run_.bytes.data() + start;
    std::memcpy(at, &count, kCountBytes);
    std::memcpy(at + kCountBytes, keys_.data(), count * sizeof(uint64_t));
    std::memcpy(at + kCountBytes + count * sizeof(uint64_t), lengths_.data(), count * sizeof(uint16_t));
    if (value_bytes_ != 0) std::memcpy(at + kCountBytes + count * kEntryBytes, values_.data(), value_bytes_);
    run_.blocks.push_back({keys_.front(), offset_, static_cast<uint32_t>(bytes), count,
                           xxh64(at, bytes, keys_.front())});
    offset_ += bytes;
    keys_.clear();
    lengths_.clear();
    value_bytes_ = 0;
}

Run RunWriter::finish() {
    if (!keys_.empty()) close_block();
    return std::exchange(run_, {});
}

RunReader::RunReader(const RunView& run, uint64_t first) : run_(run) {
    open_block();
    while (!done() && key_ < first) advance();
}

void RunReader::open_block() {
    entry_ = count_ = 0;
    if (block_ == run_.blocks.size()) return;
    const BlockEntry& block = run_.blocks[block_];
    if (block.bytes > run_.bytes.size() - bytes_before_) reject(block, "it ends beyond the bytes that are there");
    const uint8_t* at = run_.bytes.data() + bytes_before_;
    if (xxh64(at, block.bytes, block.first_key) != block.checksum) reject(block, "its checksum does not match");
    // A valid checksum does not make the contents valid.
    if (block.bytes < kCountBytes || read<uint32_t>(at) != block.count || block.count == 0 ||
        block.count > (block.bytes - kCountBytes) / kEntryBytes)
        reject(block, "it does not have the " + std::to_string(block.count) + " entries of the index");
    keys_ = at + kCountBytes;
    lengths_ = keys_ + block.count * sizeof(uint64_t);
    value_ = lengths_ + block.count * sizeof(uint16_t);
    size_t length = kCountBytes + block.count * kEntryBytes;
    for (uint32_t i = 0; i < block.count; ++i) {
        const auto own = read<uint16_t>(lengths_ + i * sizeof(uint16_t));
        length += own == kRemoved ? 0 : own;
    }
    if (length != block.bytes) reject(block, "its values do not fill it");
    if (read<uint64_t>(keys_) != block.first_key) reject(block, "it begins with another key");
    if (block_ > 0 && block.first_key <= key_) reject(block, "its keys do not follow the block before");
    count_ = block.count;
    read_entry();
}

void RunReader::read_entry() {
    key_ = read<uint64_t>(keys_ + entry_ * sizeof(uint64_t));
    length_ = read<uint16_t>(lengths_ + entry_ * sizeof(uint16_t));
}

void RunReader::advance() {
    value_ += removed() ? 0 : length_;
    if (++entry_ == count_) {
        bytes_before_ += run_.blocks[block_++].bytes;
        open_block();
        return;
    }
    const uint64_t before = key_;
    read_entry();
    if (key_ <= before) reject(run_.blocks[block_], "its keys do not ascend");
}

std::vector<uint64_t> keys_of(const RunView& run) {
    std::vector<uint64_t> keys;
    for (RunReader reader(run); !reader.done(); reader.advance()) keys.push_back(reader.key());
    return keys;
}

void find_values(const RunView& run, std::span<const uint64_t> keys, size_t width, uint8_t* values, Entry* entries) {
    std::memset(entries, 0, keys.size());
    size_t i = 0;
    for (RunReader reader(run); !reader.done(); reader.advance()) {
        while (i < keys.size() && keys[i] < reader.key()) ++i;
        if (i == keys.size()) return;
        if (keys[i] != reader.key()) continue;
        entries[i] = reader.removed() ? Entry::kRemoved : Entry::kValue;
        if (reader.removed()) continue;
        if (reader.value().size() != width)
            throw std::invalid_argument("value of key " + std::to_string(keys[i]) + ": got " +
                                        std::to_string(reader.value().size()) + " bytes, wanted " +
                                        std::to_string(width));
        std::memcpy(values + i * width, reader.value().data(), width);
    }
}

Run merge_runs(std::span<const RunView> runs, uint64_t first, uint64_t last, bool keep_removed, size_t block_bytes,
               uint64_t offset) {
    RunWriter writer(block_bytes, offset);
    size_t most_bytes = 0;
    for (const RunView& run : runs) most_bytes += run.bytes.size();
    writer.reserve(0, most_bytes);
    for_each_merged(runs, first, last, [&](const RunReader& entry) {
        if (!entry.removed()) {
            const std::span<const uint8_t> value = entry.value();
            uint8_t* out = writer.put(entry.key(), value.size());
            if (!value.empty()) std::memcpy(out, value.data(), value.size());
        } else if (keep_removed) {
            writer.remove(entry.key());
        }
    });
    return writer.finish();
}

}  // namespace springtide
