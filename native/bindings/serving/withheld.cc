// Withheld rows for pipeline/publish/price/withheld.py, which checks lengths first.
#include "serving/withheld.h"

#include "bindings/arrays.h"

using namespace springtide_bindings;
using springtide::WithheldColumns;
using springtide::WithheldRows;

namespace {

WithheldRows rows_of(const In<uint64_t>& keys, const In<float>& worth, const In<float>& worth_per_byte,
                     const In<uint32_t>& seen_s) {
    return {keys.data(), worth.data(), worth_per_byte.data(), seen_s.data(), keys.size()};
}

}  // namespace

void register_withheld(nb::module_& m) {
    m.def(
        "merge_scored",
        [](In<uint64_t> keys, In<float> worth, In<float> worth_per_byte, In<uint32_t> seen_s,
           In<uint64_t> scored_keys, In<float> scored_worth, In<float> scored_worth_per_byte,
           In<uint32_t> scored_seen_s, In<bool> withheld, Out<uint64_t> out_keys, Out<float> out_worth,
           Out<float> out_worth_per_byte, Out<uint32_t> out_seen_s) {
            nb::gil_scoped_release nogil;
            return springtide::merge_scored(
                rows_of(keys, worth, worth_per_byte, seen_s),
                rows_of(scored_keys, scored_worth, scored_worth_per_byte, scored_seen_s), withheld.data(),
                {out_keys.data(), out_worth.data(), out_worth_per_byte.data(), out_seen_s.data()});
        },
        exact("keys"), exact("worth"), exact("worth_per_byte"), exact("seen_s"), exact("scored_keys"),
        exact("scored_worth"), exact("scored_worth_per_byte"), exact("scored_seen_s"), exact("withheld"),
        exact("out_keys"), exact("out_worth"), exact("out_worth_per_byte"), exact("out_seen_s"));
    m.def(
        "split_chosen",
        [](In<uint64_t> keys, In<float> worth, In<float> worth_per_byte, In<uint32_t> seen_s, In<bool> chosen,
           Out<uint64_t> chosen_keys, Out<uint64_t> rest_keys, Out<float> rest_worth, Out<float> rest_worth_per_byte,
           Out<uint32_t> rest_seen_s) {
            nb::gil_scoped_release nogil;
            return springtide::split_chosen(
                rows_of(keys, worth, worth_per_byte, seen_s), chosen.data(), chosen_keys.data(),
                {rest_keys.data(), rest_worth.data(), rest_worth_per_byte.data(), rest_seen_s.data()});
        },
        exact("keys"), exact("worth"), exact("worth_per_byte"), exact("seen_s"), exact("chosen"), exact("chosen_keys"),
        exact("rest_keys"), exact("rest_worth"), exact("rest_worth_per_byte"), exact("rest_seen_s"));
    m.def(
        "decay_worth",
        [](In<float> worth, In<float> worth_per_byte, In<uint32_t> seen_s, uint32_t at_s, double half_life_s,
           Out<float> decayed, Out<float> decayed_per_byte) {
            nb::gil_scoped_release nogil;
            springtide::decay_worth({nullptr, worth.data(), worth_per_byte.data(), seen_s.data(), worth.size()}, at_s,
                                    half_life_s, {nullptr, decayed.data(), decayed_per_byte.data(), nullptr});
        },
        exact("worth"), exact("worth_per_byte"), exact("seen_s"), nb::arg("at_s"), nb::arg("half_life_s"),
        exact("decayed"), exact("decayed_per_byte"));
}
