// A fuzz driver for compilers without libFuzzer: fuzz_NAME [-seconds=N] [-runs=N] [-seed=N] [FILE ...]
//
// Mutates inputs that reached new edges (g++ -fsanitize-coverage=trace-pc) until the time or the number of runs is
// reached; the same seed gives the same inputs in the same order. With files, runs only those. A crash, a failed
// condition or an input that needs more than two seconds of processor time ends the program and is written to
// ./crash-NAME.
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

constexpr size_t kMaxBytes = 4096;
constexpr time_t kTimeout_s = 2;
constexpr size_t kEdges = size_t{1} << 18;

uint8_t seen[kEdges];
uintptr_t previous;
bool found_new;

Bytes current;
std::string crash_file;

// Limits processor time, because wall-clock time is unreliable on a busy machine. 0 disables the limit.
void time_input(time_t seconds) {
    const itimerval limit{{0, 0}, {seconds, 0}};
    setitimer(ITIMER_PROF, &limit, nullptr);
}

// Async-signal-safe.
void save_input() {
    const int file = open(crash_file.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (file < 0) return;
    [[maybe_unused]] const ssize_t written = write(file, current.data(), current.size());
    close(file);
}

void on_signal(int signal) {
    save_input();
    const char* message = signal == SIGPROF ? "input took too long\n" : "input aborted\n";
    [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, message, std::strlen(message));
    _exit(77);
}

// Runs `current`; returns whether it reached a new edge.
bool run_current() {
    found_new = false;
    previous = 0;
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
    const auto started_at = std::chrono::steady_clock::now();
    const auto elapsed_s = [&] {
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - started_at).count();
    };
    uint64_t runs = 0;
    for (; runs < limits.runs; ++runs) {
        if (runs % 64 == 0) {
            if (elapsed_s() >= limits.seconds) break;
            time_input(kTimeout_s);
        }
        const Bytes& from = corpus[random() % corpus.size()];
        current = mutate(from, corpus[random() % corpus.size()], kMaxBytes, random);
        if (run_current()) corpus.push_back(current);
    }
    std::printf("%llu runs, %zu inputs reached new edges\n", static_cast<unsigned long long>(runs), corpus.size());
}

}  // namespace

// Called at every edge of the code under test. Addresses are relative to this function, so that address randomisation
// does not change which inputs are selected.
extern "C" __attribute__((no_sanitize("address", "undefined"))) void __sanitizer_cov_trace_pc() {
    const uintptr_t here = reinterpret_cast<uintptr_t>(__builtin_return_address(0)) -
                           reinterpret_cast<uintptr_t>(&__sanitizer_cov_trace_pc);
    const size_t edge = (here ^ (previous << 5)) % kEdges;
    previous = here;
    if (seen[edge]) return;
    seen[edge] = 1;
    found_new = true;
}

// UBSan has no death callback; aborting calls on_signal().
extern "C" const char* __ubsan_default_options() { return "abort_on_error=1"; }

int main(int count, char** arguments) {
    const std::string program = arguments[0];
    crash_file = "crash-" + program.substr(program.rfind('/') + 1);
    __sanitizer_set_death_callback(save_input);
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
            time_input(kTimeout_s);
            run_current();
            files = true;
        }
    }
    if (!files) fuzz(limits);
    time_input(0);
}
