// Sorted runs: values by key, keys ascending, in blocks that are read and verified one by one.
//
// A run is a change of a map. An entry puts a value, which may be empty, or removes its key. Of several runs, the
// newest that has an entry for a key decides; so merging is associative, and any grouping gives the same entries.
//
// Layout of a block, little-endian:
//     count u32, keys u64[count], lengths u16[count], values
// A length of kRemoved marks a removal. A list of BlockEntry, the index, stands beside the blocks.
//
// Threads: every function is pure, a RunWriter belongs to one thread. Cost: encoding and merging copy each value once
// and hash each block once; a merge of r runs compares up to r keys per entry. Memory: that of the result.
// Failure: std::invalid_argument for blocks that are damaged, and for keys that do not ascend.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace springtide {

constexpr uint16_t kRemoved = 0xffff;
constexpr size_t kMaxValueBytes = kRemoved - 1;

// One block of a run: where it is, and what it must contain. The checksum is XXH64 of the block, seeded by first_key.
struct BlockEntry {
    uint64_t first_key;
    uint64_t offset;
    uint32_t bytes;
    uint32_t count;
    uint64_t checksum;
};
static_assert(sizeof(BlockEntry) == 32, "the index is stored");

// Consecutive blocks of a run. `bytes` begins with the first of them, whatever its offset in the run.
struct RunView {
    std::span<const uint8_t> bytes;
    std::span<const BlockEntry> blocks;
};

struct Run {
    std::vector<uint8_t> bytes;
    std::vector<BlockEntry> blocks;
};

// Builds a run of entries with ascending keys. A block is closed once it has `block_bytes`.
class RunWriter {
public:
    // `offset`: of the first block.
    explicit RunWriter(size_t block_bytes, uint64_t offset = 0) : block_bytes_(block_bytes), offset_(offset) {}

    // Reserves memory for `entries` entries with `value_bytes` bytes of values in all; more may follow.
    void reserve(size_t entries, size_t value_bytes);

    // Memory for the value of a key, valid until the next call.
    uint8_t* put(uint64_t key, size_t length);
    void remove(uint64_t key) { begin(key, kRemoved); }

    // The run; the writer is empty after it.
    Run finish();

private:
    void begin(uint64_t key, uint16_t length);
    void close_block();

    size_t block_bytes_;
    uint64_t offset_;
    std::vector<uint64_t> keys_;
    std::vector<uint16_t> lengths_;
    std::vector<uint8_t> values_;  // of the open block; only the first value_bytes_ are in use
    size_t value_bytes_ = 0;
    Run run_;
};

// Reads the entries of a run in order. Every block is verified before its first entry is read.
class RunReader {
public:
    // Begins with the first key that is at least `first`.
    RunReader(const RunView& run, uint64_t first = 0);

    bool done() const { return entry_ == count_; }
    uint64_t key() const { return key_; }
    bool removed() const { return length_ == kRemoved; }
    std::span<const uint8_t> value() const { return {value_, removed() ? size_t{0} : length_}; }
    void advance();

private:
    void open_block();
    void read_entry();

    RunView run_;
    size_t block_ = 0;
    size_t bytes_before_ = 0;  // of the blocks before block_
    uint32_t entry_ = 0, count_ = 0;
    const uint8_t* keys_ = nullptr;
    const uint8_t* lengths_ = nullptr;
    const uint8_t* value_ = nullptr;
    uint64_t key_ = 0;
    uint16_t length_ = 0;
};

// The keys of a run, removed ones too, ascending.
std::vector<uint64_t> keys_of(const RunView& run);

enum class Entry : uint8_t { kNone, kValue, kRemoved };

// entries[i]: what `run` has for keys[i], which ascend; a value, of `width` bytes, is written to values + i * width.
// Rejects a value of another length.
void find_values(const RunView& run, std::span<const uint64_t> keys, size_t width, uint8_t* values, Entry* entries);

// Calls visit(reader) at the newest entry of each key in [first, last] of runs given oldest first, by key.
template <class Visit>
void for_each_merged(std::span<const RunView> runs, uint64_t first, uint64_t last, Visit visit) {
    std::vector<RunReader> readers;
    readers.reserve(runs.size());
    for (const RunView& run : runs) readers.emplace_back(run, first);
    while (true) {
        const RunReader* newest = nullptr;
        for (const RunReader& reader : readers)
            if (!reader.done() && (newest == nullptr || reader.key() <= newest->key())) newest = &reader;
        if (newest == nullptr || newest->key() > last) return;
        const uint64_t key = newest->key();
        visit(*newest);
        for (RunReader& reader : readers)
            if (!reader.done() && reader.key() == key) reader.advance();
    }
}

// The entries with a key in [first, last] of runs given oldest first. Without `keep_removed`, removals are left out:
// the result then is a whole map, not a change of one.
Run merge_runs(std::span<const RunView> runs, uint64_t first, uint64_t last, bool keep_removed, size_t block_bytes,
               uint64_t offset);

}  // namespace springtide
