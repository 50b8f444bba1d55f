"""Which items a query may find, by their attributes."""

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.errors import InputError


@dataclass(frozen=True)
class ItemFilter:
    """Items that have all attributes of `all_of`, at least one of `any_of` (unless empty) and none of `none_of`.

    >>> ItemFilter(all_of=frozenset({0, 3}), none_of=frozenset({1})).words(attributes=4)
    (9, 0, 2)
    """

    all_of: frozenset[int] = frozenset()
    any_of: frozenset[int] = frozenset()
    none_of: frozenset[int] = frozenset()

    def words(self, attributes: int) -> tuple[int, int, int]:
        """The three sets as words, bit a for attribute a.

        Raises:
            InputError: an attribute is not in 0..attributes-1.
        """
        return word(self.all_of, attributes), word(self.any_of, attributes), word(self.none_of, attributes)


def word(chosen: Iterable[int], attributes: int) -> int:
    """The attributes as one word.

    >>> word([0, 3], attributes=4)
    9
    >>> word([4], attributes=4)
    Traceback (most recent call last):
    ...
    pipeline.errors.InputError: filter: got attribute 4, the index has 4. hint: they count from 0
    """
    bits = 0
    for attribute in chosen:
        if not 0 <= attribute < attributes:
            raise InputError(f"filter: got attribute {attribute}, the index has {attributes}. hint: they count from 0")
        bits |= 1 << attribute
    return bits
