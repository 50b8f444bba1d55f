"""The quality of what serving holds at one version: predicted, measured on new samples, and withheld.

It is a part of the version's manifest, of the manifest of each published file and of each notice. A delta does not
carry it: a replica does not use it, and every realtime delta would be larger.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Quality:
    """What serving holds compared with the trainer, at one version. JSON-able.

    The measurement is of the parent: the first batch after it, before that batch is learned. There is none if the gate
    does not trust that batch, if no label is logistic, and for a version that learns nothing.

    Attributes:
        predicted_loss: of this version, by what is withheld and rounded, relative to the trainer's loss.
        measured_loss: of the parent, relative to the trainer's loss.
        calibration: of the parent, by label: predictions of serving over positives; labels with positives only.
        withheld: by table, rows that sending would improve.
        gate: state of the gate: healthy, uncertain or corrupted; None without a gate.
        held: whether the gate kept the version's rows from serving.
        file_check: of the file that was due at the parent while the gate was not healthy: passed, or what held it:
            loss, calibration, or unmeasured without labels; None if none was checked.
        file_check_loss: what serving would have lost by that file, relative to the trainer's loss, on the same batch.
    """

    predicted_loss: float = 0.0
    measured_loss: float | None = None
    calibration: dict[str, float] = field(default_factory=dict)
    withheld: dict[str, int] = field(default_factory=dict)
    gate: str | None = None
    held: bool = False
    file_check: str | None = None
    file_check_loss: float | None = None
