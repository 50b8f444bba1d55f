// Withheld rows for pipeline/publish/withheld.py, which checks lengths first.
#include "serving/withheld.h"

#include "bindings/arrays.h"

using namespace springtide_bindings;
using springtide::WithheldColumns;
using springtide::WithheldRows;

namespace {

WithheldRows rows_of(const In<uint64_t>& keys, const In<float>& worth, const In<float>& value) {
    return {keys.data(), worth.data(), value.data(), keys.size()};
}

}  // namespace

void register_withheld(nb::module_& m) {
    m.def(
        "merge_judged",
        [](In<uint64_t> keys, In<float> worth, In<float> value, In<uint64_t> judged_keys, In<float> judged_worth,
           In<float> judged_value, In<bool> withheld, Out<uint64_t> out_keys, Out<float> out_worth,
           Out<float> out_value) {
            nb::gil_scoped_release nogil;
            return springtide::merge_judged(rows_of(keys, worth, value),
                                            rows_of(judged_keys, judged_worth, judged_value), withheld.data(),
                                            {out_keys.data(), out_worth.data(), out_value.data()});
        },
        exact("keys"), exact("worth"), exact("value"), exact("judged_keys"), exact("judged_worth"),
        exact("judged_value"), exact("withheld"), exact("out_keys"), exact("out_worth"), exact("out_value"));
    m.def(
        "split_chosen",
        [](In<uint64_t> keys, In<float> worth, In<float> value, In<bool> chosen, Out<uint64_t> chosen_keys,
           Out<uint64_t> rest_keys, Out<float> rest_worth, Out<float> rest_value) {
            nb::gil_scoped_release nogil;
            return springtide::split_chosen(rows_of(keys, worth, value), chosen.data(), chosen_keys.data(),
                                            {rest_keys.data(), rest_worth.data(), rest_value.data()});
        },
        exact("keys"), exact("worth"), exact("value"), exact("chosen"), exact("taken"), exact("left_keys"),
        exact("left_worth"), exact("left_value"));
    m.def(
        "select_worthiest",
        [](In<float> worth, In<float> value, double share, Out<bool> chosen) {
            nb::gil_scoped_release nogil;
            springtide::select_worthiest(worth.data(), value.data(), worth.size(), share, chosen.data());
        },
        exact("worth"), exact("value"), nb::arg("share"), exact("chosen"));
}
