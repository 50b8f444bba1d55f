#include <nanobind/nanobind.h>

void register_sketch(nanobind::module_&) {}
