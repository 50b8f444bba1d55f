// The core is compiled with coverage for the fuzzers; the tests count nothing.
extern "C" void __sanitizer_cov_trace_pc() {}
