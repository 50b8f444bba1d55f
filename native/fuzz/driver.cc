// The loop around a fuzz target where libFuzzer is not at hand: fuzz_NAME [-seconds=N] [-runs=N] [-seed=N] [FILE ...]
//
// Mutates what led somewhere new (g++ -fsanitize-coverage=trace-pc tells) until the time or the runs are over; the same
// seed tries the same inputs in the same order. With files, only runs those. A crash, a failed expectation or an input
// that takes more than two processor-seconds ends the program; the input is then in ./crash-NAME.
#include <fcntl.h>
#include <sanitizer/common_interface_defs.h>
#include <sys/time.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>

#include "fuzz/mutate.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size);

namespace {

constexpr size_t kMostBytes = 4096;
constexpr time_t kHangs_s = 2;
constexpr size_t kEdges = size_t{1} << 18;

uint8_t seen[kEdges];
uintptr_t before;
bool found_new;

Bytes current;
std::string crash_file;

// Counts processor time: on a busy machine the clock alone says nothing. 0 stops it.
void time_input(time_t seconds) {
    const itimerval limit{{0, 0}, {seconds, 0}};
    setitimer(ITIMER_PROF, &limit, nullptr);
}

// Only calls that a signal handler may make.
void keep_input() {
    const int file = open(crash_file.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (file < 0) return;
    [[maybe_unused]] const ssize_t written = write(file, current.data(), current.size());
    close(file);
}

void on_signal(int signal) {
    keep_input();
    const char* said = signal == SIGPROF ? "input took too long\n" : "input aborted\n";
    [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, said, std::strlen(said));
    _exit(77);
}

// Runs `current`; whether it went where no input went before.
bool run_current() {
    found_new = false;
    before = 0;
    LLVMFuzzerTestOneInput(current.data(), current.size());
    return found_new;
}

struct Limits {
    uint64_t runs = ~uint64_t{0};
    double seconds = 1;
    uint64_t seed = 1;
};

void fuzz(const Limits& limits) {
    std::mt19937_64 random(limits.seed);
    std::vector<Bytes> corpus = {{}, Bytes(64, 0)};
    const auto began = std::chrono::steady_clock::now();
    const auto spent_s = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count(); };
    uint64_t runs = 0;
    for (; runs < limits.runs; ++runs) {
        if (runs % 64 == 0) {
            if (spent_s() >= limits.seconds) break;
            time_input(kHangs_s);
        }
        const Bytes& from = corpus[random() % corpus.size()];
        current = mutate(from, corpus[random() % corpus.size()], kMostBytes, random);
        if (run_current()) corpus.push_back(current);
    }
    std::printf("%llu runs, %zu inputs led somewhere new\n", static_cast<unsigned long long>(runs), corpus.size());
}

}  // namespace

// Called at every edge of the code under test. Places are taken relative to this function: address randomisation must not
// change which inputs are kept.
extern "C" __attribute__((no_sanitize("address", "undefined"))) void __sanitizer_cov_trace_pc() {
    const uintptr_t here =
        reinterpret_cast<uintptr_t>(__builtin_return_address(0)) - reinterpret_cast<uintptr_t>(&__sanitizer_cov_trace_pc);
    const size_t edge = (here ^ (before << 5)) % kEdges;
    before = here;
    if (seen[edge]) return;
    seen[edge] = 1;
    found_new = true;
}

// UBSan knows no death callback; an abort comes by on_signal().
extern "C" const char* __ubsan_default_options() { return "abort_on_error=1"; }

int main(int count, char** arguments) {
    const std::string program = arguments[0];
    crash_file = "crash-" + program.substr(program.rfind('/') + 1);
    __sanitizer_set_death_callback(keep_input);
    std::signal(SIGABRT, on_signal);
    std::signal(SIGPROF, on_signal);
    Limits limits;
    bool files = false;
    for (int i = 1; i < count; ++i) {
        const std::string argument = arguments[i];
        if (argument.starts_with("-seconds=")) {
            limits.seconds = std::stod(argument.substr(9));
        } else if (argument.starts_with("-runs=")) {
            limits.runs = std::stoull(argument.substr(6));
        } else if (argument.starts_with("-seed=")) {
            limits.seed = std::stoull(argument.substr(6));
        } else {
            std::ifstream file(argument, std::ios::binary);
            current.assign(std::istreambuf_iterator<char>(file), {});
            time_input(kHangs_s);
            run_current();
            files = true;
        }
    }
    if (!files) fuzz(limits);
    time_input(0);
}
