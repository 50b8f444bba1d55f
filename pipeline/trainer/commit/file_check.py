"""The check of an incremental or full that is due while the gate is not healthy.

The delta of its version is held first. Then the first batch after that commit shows, before it is learned from, what
serving would predict with the file, by the rows and dense weights that the next delta would send. The file passes if

- the loss by what it withholds and rounds is at most `ALLOWED` times `publish.loss`, measured as after every commit
  (`served_loss`), and
- the labels of the batch do not object: they are calibrated within the tolerances of the gate (`Gate.objects`).

A batch that shows one of the two not at all, for it observes no label that has it, checks nothing: the file stays held.

Then a version that learns nothing sends what was held, and the file follows. Else it stays held until the next commit,
whose first batch decides again. All of this is a function of version and log: a trainer that takes over between the two
commits checks the same batch.
"""

from dataclasses import dataclass

ALLOWED = 4.0
"""How many times the loss that is allowed may be measured: a batch is small, and predictions are right within 2."""


@dataclass(frozen=True)
class FileCheck:
    """What was found of one file.

    Attributes:
        loss: what serving would lose, relative to the trainer's loss; None if the batch does not show it.
        allowed: the most that passes.
        calibrated: whether the labels of the batch do not object; None if it has none of the gate's label.
    """

    loss: float | None
    allowed: float
    calibrated: bool | None

    @property
    def outcome(self) -> str:
        """`passed`, or what holds the file: `loss`, `calibration`, or `unmeasured`.

        >>> FileCheck(0.0003, 0.0008, True).outcome, FileCheck(0.003, 0.0008, True).outcome
        ('passed', 'loss')
        >>> FileCheck(None, 0.0008, True).outcome, FileCheck(0.0003, 0.0008, None).outcome
        ('unmeasured', 'unmeasured')
        """
        if self.loss is None or self.calibrated is None:
            return "unmeasured"
        if self.loss > self.allowed:
            return "loss"
        return "passed" if self.calibrated else "calibration"

    @property
    def passed(self) -> bool:
        """Whether the file may be published."""
        return self.outcome == "passed"
