"""Task classify: a unit against one or several golden images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nvidia_tao_deploy.actions.run import results_folder
from nvidia_tao_deploy.arrays import Array
from nvidia_tao_deploy.cv.visual_changenet.spec import Spec
from nvidia_tao_deploy.data.pairs import PairTable
from nvidia_tao_deploy.data.sample import Dataset, Listed
from nvidia_tao_deploy.errors import ModelError, SpecError
from nvidia_tao_deploy.families import inspection as family
from nvidia_tao_deploy.network import Decoder, Ports
from nvidia_tao_deploy.transforms.tiled import TiledTransform
from nvidia_tao_deploy.transforms.transform import Geometry

KEY = "dataset.classify"


def golden_count(spec: Spec) -> int:
    """Golden images per unit; SpecError where there are several and the model gives the distance to one."""
    count = spec.dataset.classify.num_golden
    if count > 1 and spec.model.classify.difference_module == "euclidean":
        raise SpecError(
            f"num_golden is {count} and difference_module is euclidean, which is the distance to one golden image",
            where=spec.where(f"{KEY}.num_golden"),
            remedy="Set model.classify.difference_module to learnable, or num_golden to 1.",
        )
    return count


def dataset(spec: Spec, action: str) -> PairTable:
    """The table's pairs."""
    return family.pairs(spec, KEY, action, golden_count(spec))


def calibration(spec: Spec) -> Listed:
    """Pairs for calibration."""
    return family.calibration_pairs(spec, KEY, golden_count(spec))


def transform(spec: Spec, ports: Ports) -> TiledTransform:
    """Unit and golden images, each with all lightings."""
    data = spec.dataset.classify
    return family.pair_transform(
        data,
        ports,
        "unit",
        "golden",
        backend=spec.runtime.image_backend,
        golden_count=data.num_golden,
        stacked=data.num_golden > 1 or len(ports.inputs["golden"].shape) == 5,
    )


def decode(spec: Spec, ports: Ports) -> Decoder:
    """The score of every pair."""
    transform(spec, ports).check(family.input_shapes(ports))
    output, module = ports.outputs["output"], spec.model.classify.difference_module
    logits = len(output.shape) == 2 and output.shape[1] == 2
    if logits != (module == "learnable"):
        raise ModelError(
            f"output {output} {'holds two logits' if logits else 'is no pair of logits'}, and difference_module is "
            f"{module}",
            where=spec.where("model.classify.difference_module"),
            remedy=f"Set it to {'learnable' if logits else 'euclidean'}, or check the model.",
        )
    return probabilities if logits else distances


def probabilities(outputs: Mapping[str, Array], _geometries: Sequence[Geometry]) -> list[np.float32]:
    """Softmax of the logits (n, 2), float32: the probability of a defect."""
    logits = outputs["output"].astype(np.float32)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return list(odds[:, 1] / odds.sum(axis=1))


def distances(outputs: Mapping[str, Array], _geometries: Sequence[Geometry]) -> list[np.float32]:
    """Distances as the graph computed them, (n) or (n, 1)."""
    return list(outputs["output"].astype(np.float32).reshape(-1))


def metric(spec: Spec, data: Dataset) -> family.ReportedMetric:
    """Accuracy at the margin; evaluate.csv."""
    return family.metric(spec.model.classify.eval_margin, results_folder(spec, "evaluate"), data)


writer = family.writer
