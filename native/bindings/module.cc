// The Python module: one register function per component, each in a file of the component's folder.
#include <nanobind/nanobind.h>

namespace nb = nanobind;

void register_avro_events(nb::module_& m);
void register_csv_rows(nb::module_& m);
void register_frequency(nb::module_& m);
void register_gather(nb::module_& m);
void register_item_tree(nb::module_& m);
void register_join_index(nb::module_& m);
void register_join_rows(nb::module_& m);
void register_keys(nb::module_& m);
void register_model_input(nb::module_& m);
void register_pooling(nb::module_& m);
void register_quantizer(nb::module_& m);
void register_record_batches(nb::module_& m);
void register_rounding(nb::module_& m);
void register_coded_rows(nb::module_& m);
void register_scan_index(nb::module_& m);
void register_sent_rows(nb::module_& m);
void register_served_view(nb::module_& m);
void register_simd(nb::module_& m);
void register_sorted_run(nb::module_& m);
void register_sketch(nb::module_& m);
void register_table(nb::module_& m);
void register_unique(nb::module_& m);
void register_withheld(nb::module_& m);

NB_MODULE(_native, m) {
    m.doc() = "the native core of springtide; use the Python faces, not this module";
    register_avro_events(m);
    register_csv_rows(m);
    register_frequency(m);
    register_gather(m);
    register_item_tree(m);
    register_join_index(m);
    register_join_rows(m);
    register_keys(m);
    register_model_input(m);
    register_pooling(m);
    register_quantizer(m);
    register_record_batches(m);
    register_rounding(m);
    register_coded_rows(m);
    register_scan_index(m);
    register_sent_rows(m);
    register_served_view(m);
    register_simd(m);
    register_sorted_run(m);
    register_sketch(m);
    register_table(m);
    register_unique(m);
    register_withheld(m);
}
