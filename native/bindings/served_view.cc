#include <nanobind/nanobind.h>

void register_served_view(nanobind::module_&) {}
