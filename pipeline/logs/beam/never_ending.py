"""A Beam step that passes elements on and never ends, so that timers behind it keep firing.

Once all sources of a job have ended, the watermark reaches the end of time: a runner then drops the timers that a
stateful step sets, because they count as late.
"""

from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.io.restriction_trackers import OffsetRange, OffsetRestrictionTracker
from apache_beam.transforms.core import RestrictionProvider
from apache_beam.utils.timestamp import Duration

_YEAR = Duration(365 * 86_400)


def never_end() -> beam.ParDo:
    """The step."""
    return beam.ParDo(_NeverEnd())  # type: ignore[no-untyped-call]


class _OneOfTwo(RestrictionProvider):  # type: ignore[misc]
    """Offset 0 is claimed by passing the element on, offset 1 never."""

    def initial_restriction(self, element: Any) -> OffsetRange:
        return OffsetRange(0, 2)

    def create_tracker(self, restriction: OffsetRange) -> OffsetRestrictionTracker:
        return OffsetRestrictionTracker(restriction)

    def restriction_size(self, element: Any, restriction: OffsetRange) -> int:
        return 1


class _NeverEnd(beam.DoFn):  # type: ignore[misc]
    """An element → itself."""

    @beam.DoFn.unbounded_per_element()  # type: ignore[untyped-decorator]
    def process(self, element: Any, tracker: Any = beam.DoFn.RestrictionParam(_OneOfTwo())) -> Iterator[Any]:  # noqa: B008 - Beam's way
        if tracker.current_restriction().start == 0 and tracker.try_claim(0):
            yield element
        tracker.defer_remainder(_YEAR)
