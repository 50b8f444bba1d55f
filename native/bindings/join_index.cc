#include <nanobind/nanobind.h>

void register_join_index(nanobind::module_&) {}
