// Withheld rows for pipeline/publish/withheld.py, which checks lengths first.
#include "serving/withheld.h"

#include "bindings/arrays.h"

using namespace springtide_bindings;
using springtide::WithheldColumns;
using springtide::WithheldRows;

namespace {

WithheldRows rows_of(const In<uint64_t>& keys, const In<float>& worth, const In<float>& worth_per_byte) {
    return {keys.data(), worth.data(), worth_per_byte.data(), keys.size()};
}

}  // namespace

void register_withheld(nb::module_& m) {
    m.def(
        "merge_scored",
        [](In<uint64_t> keys, In<float> worth, In<float> worth_per_byte, In<uint64_t> scored_keys,
           In<float> scored_worth, In<float> scored_worth_per_byte, In<bool> withheld,
           Out<uint64_t> out_keys, Out<float> out_worth, Out<float> out_worth_per_byte) {
            nb::gil_scoped_release nogil;
            return springtide::merge_scored(rows_of(keys, worth, worth_per_byte),
                                            rows_of(scored_keys, scored_worth, scored_worth_per_byte), withheld.data(),
                                            {out_keys.data(), out_worth.data(), out_worth_per_byte.data()});
        },
        exact("keys"), exact("worth"), exact("worth_per_byte"), exact("scored_keys"), exact("scored_worth"),
        exact("scored_worth_per_byte"), exact("withheld"), exact("out_keys"), exact("out_worth"),
        exact("out_worth_per_byte"));
    m.def(
        "split_chosen",
        [](In<uint64_t> keys, In<float> worth, In<float> worth_per_byte, In<bool> chosen, Out<uint64_t> chosen_keys,
           Out<uint64_t> rest_keys, Out<float> rest_worth, Out<float> rest_worth_per_byte) {
            nb::gil_scoped_release nogil;
            return springtide::split_chosen(rows_of(keys, worth, worth_per_byte), chosen.data(), chosen_keys.data(),
                                            {rest_keys.data(), rest_worth.data(), rest_worth_per_byte.data()});
        },
        exact("keys"), exact("worth"), exact("worth_per_byte"), exact("chosen"), exact("chosen_keys"),
        exact("rest_keys"), exact("rest_worth"), exact("rest_worth_per_byte"));
    m.def(
        "select_worthiest",
        [](In<float> worth, In<float> worth_per_byte, double share, Out<bool> chosen) {
            nb::gil_scoped_release nogil;
            springtide::select_worthiest(worth.data(), worth_per_byte.data(), worth.size(), share, chosen.data());
        },
        exact("worth"), exact("worth_per_byte"), nb::arg("share"), exact("chosen"));
}
