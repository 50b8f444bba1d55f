"""Features of raw columns in serving: of one network, or of several that read some of the same columns."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.arrays.types import Int64s
from pipeline.configuration.config import Config
from pipeline.errors import InputError, UserCodeError
from pipeline.features.plan import FeaturePlan, Features
from pipeline.features.weights import WeightsError


class InstanceReader:
    """The features that a configuration reads. Thread-safe if the user's functions are."""

    def __init__(self, config: Config, root: Path) -> None:
        """Load the user's functions from the project folder `root`. Raises ConfigError and ModelError."""
        self._config, self._plan = config, FeaturePlan(config, root)

    @property
    def columns(self) -> tuple[str, ...]:
        """The raw columns that are read, except `at`."""
        return self._plan.columns

    def features(self, instances: Sequence[Any], now_ms: int, first: int = 0) -> Features:
        """Keys and dense numbers of JSON instances; errors count the instances from `first`.

        Raises InputError, also for a dense number that is not finite as float32, and ModelError.
        """
        return self.features_of(*self.batch_of(instances, now_ms, first), first)

    def batch_of(self, instances: Sequence[Any], now_ms: int, first: int = 0) -> tuple[pa.RecordBatch, Int64s]:
        """Raw columns and times of JSON instances. Raises InputError."""
        return self._plan.batch_of(instances, now_ms, first)

    def features_of(self, batch: pa.RecordBatch, at_ms: Int64s, first: int = 0) -> Features:
        """Keys and dense numbers of what `batch_of` returned. Raises as `features`."""
        try:
            features = self._plan.extract(batch, at_ms)
        except WeightsError as failure:
            raise InputError(f"instance {first + failure.row}, {failure}") from None
        except UserCodeError as failure:
            if failure.row is None:
                raise
            row = first + failure.row
            raise UserCodeError(f"instance {row}: {failure}", row) from failure
        invalid = np.argwhere(~np.isfinite(features.dense))
        if len(invalid):
            row, position = invalid[0]
            number = [d for d in self._config.dense for _ in range(d.width)][position]
            raise InputError(
                f"instance {first + row}, column {number.column}: {batch.column(number.column)[int(row)]} does not fit "
                f"dense input {number.name}, wanted a finite number of 32 bits"
            )
        return features


class JointReader(InstanceReader):
    """Reads instances once for several networks, each of a part of one configuration."""

    def __init__(self, config: Config, root: Path, networks: Sequence[Config]) -> None:
        """`networks`: the configuration with the fields and dense inputs of each. Raises ConfigError and ModelError."""
        read = {field.name for network in networks for field in network.fields}
        read |= {number.name for network in networks for number in network.dense}
        fields = tuple(field for field in config.fields if field.name in read)
        dense = tuple(number for number in config.dense if number.name in read)
        super().__init__(config.model_copy(update={"fields": fields, "dense": dense}), root)
        columns = [number.name for number in dense for _ in range(number.width)]
        self._dense = [_places(columns, network) for network in networks]

    def of(self, features: Features, network: int) -> Features:
        """What the network of this number reads of features; it ignores the keys of other fields."""
        return Features(features.keys, features.dense[:, self._dense[network]])


def _places(columns: Sequence[str], network: Config) -> Int64s:
    """[dense columns of the network] their places among all dense columns."""
    names = {number.name for number in network.dense}
    return np.flatnonzero([name in names for name in columns]).astype(np.int64)
