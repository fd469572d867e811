"""Siamese optical inspection: two embeddings, and their distance says how far a unit is from its golden image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.actions.run import results_folder
from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.cv.optical_inspection.spec import Spec
from nvidia_tao_deploy.data.pairs import Listed, PairTable
from nvidia_tao_deploy.data.sample import Dataset
from nvidia_tao_deploy.families import inspection as family
from nvidia_tao_deploy.families.images import batch_size
from nvidia_tao_deploy.metrics.inspection import InspectionMetric
from nvidia_tao_deploy.network import Decoder, Network, Port, Ports, expect
from nvidia_tao_deploy.predictions.score_table import ScoreTable
from nvidia_tao_deploy.transforms.tiled import TiledTransform
from nvidia_tao_deploy.transforms.transform import Geometry


def dataset(spec: Spec, action: str) -> PairTable:
    """The table's pairs."""
    return family.pairs(spec, "dataset", action)


def calibration(spec: Spec) -> Listed:
    """Pairs for calibration."""
    return family.calibration_pairs(spec, "dataset")


def transform(spec: Spec, ports: Ports) -> TiledTransform:
    """Both inputs, each with all lightings."""
    return family.pair_transform(spec.dataset, ports, "input_1", "input_2", backend=spec.runtime.image_backend)


def decode(spec: Spec, ports: Ports, _action: str) -> Decoder:
    """Distances of the embeddings.

    Raises:
        ModelError: the spec's images do not make the model's inputs.
    """
    transform(spec, ports).check(family.input_shapes(ports))
    return distances


def distances(outputs: Mapping[str, NDArray[Any]], _geometries: Sequence[Geometry]) -> list[np.float32]:
    """Euclidean distance of the two embeddings (n, D) of every pair, in float32."""
    unit, golden = (outputs[role].astype(np.float32) for role in ("output_1", "output_2"))
    return list(np.sqrt(np.square(unit - golden).sum(axis=1)))


def metric(spec: Spec, data: Dataset) -> family.ReportedMetric:
    """Accuracy at the margin; evaluate.csv."""
    assert isinstance(data, PairTable)
    table = ScoreTable(results_folder(spec, "evaluate") / "evaluate.csv", data.columns)
    return family.ReportedMetric(InspectionMetric(spec.model.margin), table)


def writer(_spec: Spec, folder: Path, data: Dataset, _ports: Ports) -> ScoreTable:
    """inference.csv."""
    assert isinstance(data, PairTable)
    family.say_issues(data)
    return ScoreTable(folder / "inference.csv", data.columns)


NETWORK = Network(
    name="optical_inspection",
    spec=Spec,
    bind=expect(
        inputs=(Port("input_1", channels=(3,)), Port("input_2", channels=(3,))),
        outputs=(Port("output_1", rank=2), Port("output_2", rank=2)),
    ),
    calibration=calibration,
    transform=transform,
    dataset=dataset,
    decode=decode,
    metric=metric,
    writer=writer,
    batch_size=batch_size,
)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
