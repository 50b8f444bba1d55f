// The kernels' halves: the same bits as the scalar functions, and rounding up and down.
#define SPRINGTIDE_SIMD Portable
#include "simd/kernels/halves.h"

#include <cmath>
#include <initializer_list>

#include "quantizer/half.h"
#include "tests/expect.h"

namespace springtide {
namespace {

float value_of(int32_t half) { return from_half(ints(half))[0]; }
int32_t nearest(float value) { return to_half(floats(value))[0]; }
int32_t below(float value) { return to_half_down(floats(value))[0]; }
int32_t above(float value) { return to_half_up(floats(value))[0]; }

void agrees_with_the_scalar_functions(float value) {
    const uint16_t half = springtide::to_half(value);
    expect(nearest(value) == half && value_of(half) == springtide::from_half(half), "the same bits");
}

void halves_are_rounded_to_even_and_outwards() {
    for (int32_t half = 0; half < kMaxHalf; ++half) {
        const float low = value_of(half), high = value_of(half + 1), tie = low + (high - low) / 2;
        for (const float value : {low, tie, high, std::nextafter(tie, low), std::nextafter(tie, high)})
            for (const float signed_value : {value, -value}) {
                agrees_with_the_scalar_functions(signed_value);
                expect(value_of(below(signed_value)) <= signed_value, "down");
                expect(value_of(above(signed_value)) >= signed_value, "up");
            }
        expect(below(tie) == half && above(tie) == half + 1, "neighbours");
    }
    expect(nearest(1e9f) == kMaxHalf && below(-1e9f) == 0xFBFF && above(1e9f) == kMaxHalf, "saturates");
}

}  // namespace
}  // namespace springtide

int main() { springtide::halves_are_rounded_to_even_and_outwards(); }
