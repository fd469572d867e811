"""Networks that compare a unit with its golden image: datasets, transform, reports of evaluate."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nvidia_tao_deploy.data.pairs import PairFiles, PairTable, together
from nvidia_tao_deploy.data.sample import Dataset, Listed, Sample
from nvidia_tao_deploy.data.text import counted
from nvidia_tao_deploy.errors import DataError, SpecError
from nvidia_tao_deploy.families.inspection_spec import PairData
from nvidia_tao_deploy.metrics.inspection import InspectionMetric
from nvidia_tao_deploy.metrics.metric import Metric
from nvidia_tao_deploy.network import Ports, Writer
from nvidia_tao_deploy.pipeline.progress import say
from nvidia_tao_deploy.predictions.table import ScoreTable
from nvidia_tao_deploy.transforms.tiled import TiledTransform, tiles

# Calibration takes what the network was trained on, where it is there.
CALIBRATION_ORDER = ("train_dataset", "validation_dataset", "test_dataset", "infer_dataset")


def pairs(spec: Any, key: str, action: str, golden_count: int = 1) -> PairTable:
    """evaluate: the labelled rows of ``<key>.test_dataset``, else of ``infer_dataset``; inference: ``infer_dataset``.

    ``key`` is the dotted key of a :class:`PairData`; units have ``golden_count`` golden images each.

    Raises:
        SpecError: table, folder or suffix is not named, or the images of a unit do not fit together.
        DataError: see :class:`PairTable`.
    """
    data: PairData = spec.get(key)
    evaluated = action == "evaluate" and (data.test_dataset.csv_path or not data.infer_dataset.csv_path)
    source = "test_dataset" if evaluated else "infer_dataset"
    table = spec.require(f"{key}.{source}.csv_path")
    files = _files(spec, key, spec.require(f"{key}.{source}.images_dir"), golden_count)
    return PairTable(table, files, labelled=action == "evaluate", strict=spec.strict)


def calibration_pairs(spec: Any, key: str, golden_count: int = 1) -> Listed:
    """Rows whose files are all there, of the first table that exists in the order of :data:`CALIBRATION_ORDER`.

    Files are looked up in ``calibration.cal_image_dir`` where it is given, else in the table's own folder.

    Raises:
        SpecError: no table is named, or the suffix is not.
        DataError: no table exists, or no row has its files.
    """
    listed_in = {name: spec.get(f"{key}.{name}.csv_path") for name in CALIBRATION_ORDER}
    named: dict[str, str] = {name: path for name, path in listed_in.items() if path}
    if not named:
        spec.require(f"{key}.train_dataset.csv_path")
    name = next((name for name, path in named.items() if os.path.isfile(path)), None)
    if name is None:
        listed = ", ".join(named.values())
        raise DataError(f"calibration needs pairs, and no table of them exists: {listed}", where=spec.where(key))
    folders = spec.gen_trt_engine.tensorrt.calibration.cal_image_dir or [spec.require(f"{key}.{name}.images_dir")]
    found, refused = [], []
    for folder in folders:
        files = _files(spec, key, folder, golden_count)
        try:
            found.append(PairTable(named[name], files, labelled=False, require_files=True))
        except DataError as error:
            refused.append(error)
    if not found:
        raise refused[0]
    for refusal in refused:
        say(f"note: no calibration pair: {refusal.where}: {refusal.what}")
    left_out = sum(len(table.issues) for table in found)
    note = f", {counted(left_out, 'rows left out')}" if left_out else ""
    say(f"Calibration pairs: {sum(map(len, found))} of {key}.{name}{note}")
    return together(found)


def _files(spec: Any, key: str, images_dir: str, golden_count: int) -> PairFiles:
    data: PairData = spec.get(key)
    problem = data.problem()
    if problem:
        raise SpecError(
            problem[1],
            where=spec.where(f"{key}.{problem[0]}"),
            remedy="Give what the model was trained and exported with.",
        )
    folder = Path(os.path.abspath(images_dir))
    return PairFiles(folder, spec.require(f"{key}.image_ext"), data.lights, golden_count)


def pair_transform(
    data: PairData, ports: Ports, unit: str, golden: str, *, backend: str, golden_count: int = 1, stacked: bool = False
) -> TiledTransform:
    """The lightings of unit and golden image tiled on their inputs, (x / 255 - mean) / std.

    Args:
        data: the spec's section.
        ports: the model's tensors.
        unit: role of the unit's input.
        golden: role of the golden image's input.
        backend: image decoder.
        golden_count: golden images per unit.
        stacked: the golden input has an axis for them.
    """
    size, count, columns = (data.image_width, data.image_height), data.images_per_unit, data.columns
    names = (ports.inputs[unit].name, ports.inputs[golden].name)
    layout = tiles(names[0], size, count, columns)
    for i in range(golden_count):
        layout += tiles(names[1], size, count, columns, stack=i if stacked else None)
    shape = (3, count // columns * size[1], columns * size[0])
    return TiledTransform(
        layout,
        {names[0]: shape, names[1]: (golden_count, *shape) if stacked else shape},
        resize="stretch_bilinear" if data.resize == "antialias" else "stretch",
        scale=1 / 255,
        mean=data.augmentation_config.rgb_input_mean,
        std=data.augmentation_config.rgb_input_std,
        backend=backend,
    )


def input_shapes(ports: Ports) -> Mapping[str, tuple[int | None, ...]]:
    """Shapes of the model's inputs without the batch axis, by tensor name."""
    return {tensor.name: tuple(tensor.shape[1:]) for tensor in ports.inputs.values()}


def metric(margin: float, folder: Path, data: Dataset) -> ReportedMetric:
    """Accuracy at the margin, and ``evaluate.csv`` in the results folder."""
    assert isinstance(data, PairTable)
    return ReportedMetric(InspectionMetric(margin), ScoreTable(folder / "evaluate.csv", data.columns))


def writer(_spec: Any, folder: Path, data: Dataset, _ports: Ports) -> ScoreTable:
    """``inference.csv``."""
    assert isinstance(data, PairTable)
    return ScoreTable(folder / "inference.csv", data.columns)


class ReportedMetric:
    """A metric whose evaluation leaves the same files as inference; they are written with the result."""

    def __init__(self, metric: Metric, writer: Writer) -> None:
        self._metric, self._writer, self.report = metric, writer, metric.report

    def update(self, sample: Sample, prediction: Any) -> None:
        """Take one sample's prediction."""
        self._metric.update(sample, prediction)
        self._writer.write(sample, prediction)

    def compute(self) -> dict[str, float]:
        """The metric's numbers."""
        self._writer.close()
        return self._metric.compute()
