"""The shape of a metric as actions see it."""

from __future__ import annotations

from typing import Any, Protocol

from nvidia_tao_deploy.data.sample import Sample


class Metric(Protocol):
    """Collects predictions against targets; the order of updates is the dataset's.

    A metric may also have ``files() -> {name: text}``: what evaluate leaves beside results.json;
    ``kpi() -> {key: number}``: what status.json holds instead of the results; and ``condensed(sample, prediction)``:
    the little that ``update``, which takes it too, needs of a large prediction.
    """

    def update(self, sample: Sample, prediction: Any) -> None:
        """Take one sample's prediction; the target is the sample's own.

        Raises:
            DataError: the target cannot be read or used; the sample has then left no trace.
            ModelError: the prediction is NaN, or of a class that has no name.
        """
        ...

    def compute(self) -> dict[str, float]:
        """The network's results.json keys, in the order a report lists them (NaN: undefined).

        Raises:
            DataError: nothing was evaluated.
        """
        ...

    def report(self) -> str:
        """The table a person reads after evaluate (monospaced text)."""
        ...
