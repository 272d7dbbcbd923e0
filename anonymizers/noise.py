"""Additive noise on coordinates."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from bench.anonymizer import Anonymizer, ClipBatch
from bench.specs import param


@dataclass(frozen=True)
class GaussianNoise(Anonymizer):
    """White noise on every coordinate of every body that is present (methods.md section 4.3, `gauss`)."""

    std: float = param(0.05, "standard deviation of the noise on each coordinate", unit="m", minimum=0, shown=True)

    stochastic: ClassVar[bool] = True

    def transform(self, batch: ClipBatch, state: Mapping[str, Tensor]) -> Tensor:
        return batch.clips + self.std * batch.randn() * batch.present
