"""The durations of the join in milliseconds; a click is an event of any feedback."""

from dataclasses import dataclass

from pipeline.configuration.config import Config
from pipeline.configuration.streams.feedbacks import Feedback
from pipeline.logs.events.codec import NO_WATERMARK


@dataclass(frozen=True)
class Durations:
    """All in ms; s is an impression's time."""

    window_ms: int
    horizon_ms: int
    key_retention_ms: int
    disorder_ms: int

    @classmethod
    def of(cls, config: Config, feedback: Feedback | None = None) -> "Durations":
        """Those of a feedback; without one, of the feedback with the longest window and horizon, by which impressions
        are held.
        """
        if feedback is None:
            return max((cls.of(config, each) for each in config.feedbacks), key=lambda each: each.attributed_ms)
        seconds = (feedback.window_s, feedback.horizon_s, config.samples.key_retention_s, config.events.disorder_s)
        return cls(*(round(1000 * s) for s in seconds))

    @property
    def attributed_ms(self) -> int:
        """A click before s + this makes a sample: window and horizon."""
        return self.window_ms + self.horizon_ms

    @property
    def known_ms(self) -> int:
        """The impression is known until s + this; then its key may be used again."""
        return self.attributed_ms + self.key_retention_ms

    @property
    def held_ms(self) -> int:
        """The impression is held until s + this.

        At least `disorder_ms`, so that the reason of a click before its impression can still be determined.
        """
        return max(self.known_ms, self.disorder_ms)


def max_event_time_of(watermark_ms: int | None, durations: Durations) -> int | None:
    """The largest event time of a partition, from its watermark; None if there was no event."""
    return None if watermark_ms is None or watermark_ms == NO_WATERMARK else watermark_ms + durations.disorder_ms
