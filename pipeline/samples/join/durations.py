"""The join's lengths of time in milliseconds, and what an impression still means at a time."""

from dataclasses import dataclass

from pipeline.configuration.config import Config
from pipeline.logs.events.codec import NO_WATERMARK


@dataclass(frozen=True)
class Durations:
    """All in ms. s is an impression's time."""

    window_ms: int
    horizon_ms: int
    remember_ms: int
    disorder_ms: int

    @classmethod
    def of(cls, config: Config) -> "Durations":
        """The spans that the configuration gives in seconds."""
        samples = config.samples
        seconds = (samples.window_s, samples.horizon_s, samples.remember_s, config.events.disorder_s)
        return cls(*(round(1000 * s) for s in seconds))

    @property
    def attributed_ms(self) -> int:
        """From s on, how long a click still makes a sample: window and horizon."""
        return self.window_ms + self.horizon_ms

    @property
    def known_ms(self) -> int:
        """From s on, how long the impression is known; at s + this it is as if it had never been."""
        return self.attributed_ms + self.remember_ms

    @property
    def held_ms(self) -> int:
        """From s on, how long the impression must be held.

        A click may come before its impression and is decided within `disorder_ms`, so nothing goes earlier than that.
        """
        return max(self.known_ms, self.disorder_ms)


def max_event_time_of(watermark_ms: int | None, spans: Durations) -> int | None:
    """The largest event time that a partition's watermark stands for; None where it has seen none."""
    return None if watermark_ms is None or watermark_ms == NO_WATERMARK else watermark_ms + spans.disorder_ms
