// Filters, values found by key and ranges of a file, against maps and the file's bytes. Run under the sanitizers.
#include "runs/key_filter.h"

#include <cstdio>
#include <cstring>
#include <map>
#include <random>
#include <vector>

#include "runs/file_ranges.h"
#include "runs/run_files.h"
#include "runs/sorted_run.h"
#include "tests/expect.h"

namespace {

using namespace springtide;

void every_key_passes(unsigned seed, size_t n) {
    std::mt19937_64 random(seed);
    std::vector<uint64_t> keys(n), others(2'000);
    for (uint64_t& key : keys) key = random();
    for (uint64_t& key : others) key = random();
    std::vector<uint8_t> filter(filter_bytes(n)), passed(n), others_passed(others.size());
    add_keys(filter, keys);
    may_contain(filter, keys, passed.data());
    may_contain(filter, others, others_passed.data());
    size_t wrong = 0;
    for (const uint8_t each : passed) expect(each == 1, "a key that was added passes");
    for (const uint8_t each : others_passed) wrong += each;
    expect(wrong <= others.size() / 30, "few other keys pass");
}

void values_are_found(unsigned seed) {
    std::mt19937_64 random(seed);
    RunWriter writer(100);
    std::map<uint64_t, int> expected;  // -1 for a removal
    for (uint64_t key = 0; key < 500; ++key) {
        const auto what = random() % 3;
        if (what == 1) writer.remove(key);
        if (what == 2) *writer.put(key, 1) = static_cast<uint8_t>(key);
        if (what > 0) expected[key] = what == 1 ? -1 : static_cast<uint8_t>(key);
    }
    const Run run = writer.finish();
    const RunView view{run.bytes, run.blocks};
    std::vector<uint64_t> wanted;
    for (uint64_t key = 0; key < 510; ++key)
        if (random() % 2 == 0) wanted.push_back(key);
    std::vector<uint8_t> values(wanted.size());
    std::vector<Entry> entries(wanted.size());
    find_values(view, wanted, 1, values.data(), entries.data());
    for (size_t i = 0; i < wanted.size(); ++i) {
        const auto at = expected.find(wanted[i]);
        if (at == expected.end()) expect(entries[i] == Entry::kNone, "a key without an entry has none");
        else if (at->second < 0) expect(entries[i] == Entry::kRemoved, "a removal is found");
        else expect(entries[i] == Entry::kValue && values[i] == at->second, "a value is found");
    }
    expect(keys_of(view).size() == expected.size(), "every key is listed");
}

void ranges_are_read() {
    std::FILE* file = std::tmpfile();
    std::vector<uint8_t> content(10'000);
    for (size_t i = 0; i < content.size(); ++i) content[i] = static_cast<uint8_t>(i * 7);
    std::fwrite(content.data(), 1, content.size(), file);
    std::fflush(file);
    const std::vector<uint64_t> offsets = {0, 100, 130, 5'000, 9'990};
    const std::vector<uint32_t> lengths = {100, 30, 0, 77, 20};
    std::vector<uint8_t> out(227, 1);
    read_ranges(fileno(file), offsets, lengths, out.data());
    size_t at = 0;
    for (size_t i = 0; i < offsets.size(); ++i)
        for (size_t j = 0; j < lengths[i]; ++j, ++at) {
            const size_t place = offsets[i] + j;
            expect(out[at] == (place < content.size() ? content[place] : 0), "a byte of a range, zero beyond the end");
        }
    std::fclose(file);
    expect_rejected([&] { read_ranges(-1, offsets, lengths, out.data()); }, "a file that cannot be read");
}

void newest_file_decides(unsigned seed) {
    std::mt19937_64 random(seed);
    std::map<uint64_t, std::pair<uint32_t, int>> expected;  // (file, value or -1)
    std::vector<Run> runs;
    std::vector<std::vector<uint8_t>> filters;
    std::vector<std::FILE*> opened;
    for (uint32_t number = 0; number < 4; ++number) {
        RunWriter writer(200);
        std::vector<uint64_t> keys;
        for (uint64_t key = 0; key < 1'000; ++key) {
            if (random() % (4 - number) != 0) continue;
            const bool removed = random() % 4 == 0;
            if (removed) writer.remove(key);
            else *writer.put(key, 1) = static_cast<uint8_t>(key + number);
            keys.push_back(key);
            expected.try_emplace(key, number, removed ? -1 : static_cast<uint8_t>(key + number));
        }
        runs.push_back(writer.finish());
        filters.emplace_back(filter_bytes(keys.size()));
        add_keys(filters.back(), keys);
        opened.push_back(std::tmpfile());
        std::fwrite("head", 1, 4, opened.back());
        std::fwrite(runs.back().bytes.data(), 1, runs.back().bytes.size(), opened.back());
        std::fflush(opened.back());
    }
    std::vector<RunFile> files;
    for (size_t i = 0; i < runs.size(); ++i) files.push_back({fileno(opened[i]), 4, runs[i].blocks, filters[i]});
    std::vector<uint64_t> wanted;
    for (uint64_t key = 0; key < 1'010; ++key)
        if (random() % 3 != 0) wanted.push_back(key);
    std::vector<uint8_t> values(wanted.size());
    std::vector<Entry> entries(wanted.size());
    std::vector<uint32_t> file_of(wanted.size());
    uint32_t reading;
    find_in_files(files, wanted, 1, values.data(), entries.data(), file_of.data(), &reading);
    for (size_t i = 0; i < wanted.size(); ++i) {
        const auto at = expected.find(wanted[i]);
        expect((entries[i] == Entry::kNone) == (at == expected.end()), "a key has an entry or not");
        if (at == expected.end()) continue;
        const auto [number, value] = at->second;
        expect(file_of[i] == number && (entries[i] == Entry::kRemoved) == (value < 0), "the newest file decides");
        expect(value < 0 || values[i] == value, "its value is found");
    }
    files[2].descriptor = -1;
    expect_rejected([&] { find_in_files(files, wanted, 1, values.data(), entries.data(), file_of.data(), &reading); },
                    "a file that cannot be read");
    expect(reading == 2, "the file that failed is known");
    for (std::FILE* file : opened) std::fclose(file);
}

}  // namespace

int main() {
    for (unsigned seed = 0; seed < 10; ++seed) {
        for (const size_t n : {0, 1, 26, 5'000}) every_key_passes(seed, n);
        values_are_found(seed);
        newest_file_decides(seed);
    }
    ranges_are_read();
    std::vector<uint8_t> odd(33);
    expect_rejected([&] { add_keys(odd, {}); }, "a filter of another size");
}
