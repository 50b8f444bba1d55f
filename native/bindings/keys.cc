#include <nanobind/nanobind.h>

void register_keys(nanobind::module_&) {}
