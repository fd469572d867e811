"""Siamese optical inspection: two embeddings, and their distance says how far a unit is from its golden image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from nvidia_tao_deploy.actions.run import results_folder
from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.arrays import Array
from nvidia_tao_deploy.cv.optical_inspection.spec import Spec
from nvidia_tao_deploy.families import inspection as family
from nvidia_tao_deploy.families.images import image_network
from nvidia_tao_deploy.network import Decoder, Port, Ports, expect
from nvidia_tao_deploy.transforms.tiled import TiledTransform
from nvidia_tao_deploy.transforms.transform import Geometry


def transform(spec: Spec, ports: Ports) -> TiledTransform:
    """Both inputs, each with all lightings."""
    return family.pair_transform(spec.dataset, ports, "input_1", "input_2", backend=spec.runtime.image_backend)


def decode(spec: Spec, ports: Ports, _action: str) -> Decoder:
    """Distances of the embeddings; ModelError where the spec's images do not make the model's inputs."""
    transform(spec, ports).check(family.input_shapes(ports))
    return distances


def distances(outputs: Mapping[str, Array], _geometries: Sequence[Geometry]) -> list[np.float32]:
    """Euclidean distance of the two embeddings (n, D) of every pair, in float32."""
    unit, golden = (outputs[role].astype(np.float32) for role in ("output_1", "output_2"))
    return list(np.sqrt(np.square(unit - golden).sum(axis=1)))


NETWORK = image_network(
    spec=Spec,
    bind=expect(
        inputs=(Port("input_1", channels=(3,)), Port("input_2", channels=(3,))),
        outputs=(Port("output_1", rank=2), Port("output_2", rank=2)),
    ),
    calibration=partial(family.calibration_pairs, key="dataset"),
    transform=transform,
    dataset=lambda spec, action: family.pairs(spec, "dataset", action),
    decode=decode,
    metric=lambda spec, data: family.metric(spec.model.margin, results_folder(spec, "evaluate"), data),
    writer=family.writer,
)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
