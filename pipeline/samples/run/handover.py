"""Blocks handed from one Beam step to the next inside one process: Beam carries a ticket, the block stays where it is.

A block that crosses a shuffle as bytes is copied half a dozen times on its way; a ticket costs nothing. It is good once
and in this process only: what is lost with the process is read from the log again, like all that was not said yet.
"""

import itertools

from pipeline.arrays.block import DeadLetters, EventBlock

Parcel = EventBlock | DeadLetters


class Handover:
    """What is under way between two steps. Thread-safe: each call is one operation on a dict."""

    def __init__(self) -> None:
        self._left: dict[int, Parcel] = {}
        self._tickets = itertools.count()

    def __len__(self) -> int:
        return len(self._left)

    def leave(self, parcel: Parcel) -> int:
        """Leave something to be fetched; returns its ticket."""
        ticket = next(self._tickets)
        self._left[ticket] = parcel
        return ticket

    def fetch(self, ticket: int) -> Parcel:
        """What was left, which is no longer kept here."""
        return self._left.pop(ticket)

    def clear(self) -> None:
        """Forget what nobody has fetched: the steps that would have are over."""
        self._left.clear()
