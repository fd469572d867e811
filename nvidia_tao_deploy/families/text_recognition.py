"""Text recognisers: an id and its probability per time step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nvidia_tao_deploy.data.text_labels import TextLabels, read_characters
from nvidia_tao_deploy.errors import ModelError
from nvidia_tao_deploy.families.images import image_network
from nvidia_tao_deploy.metrics.ocr import TextMetric
from nvidia_tao_deploy.network import Binder, Network, Port, Ports, expect
from nvidia_tao_deploy.predictions.text_writer import TextWriter
from nvidia_tao_deploy.runtime.session import TensorInfo

OUTPUTS = {
    "lprnet": {"ids": "tf_op_layer_ArgMax", "probabilities": "tf_op_layer_Max"},
    "ocrnet": {"ids": "output_id", "probabilities": "output_prob"},
}


def binder(network: str, image: Port) -> Binder:
    """A binder of the roles ``ids`` and ``probabilities``: by name, else by type, never by position alone.

    It raises ModelError where the model has other inputs, no such pair of outputs, those of the other network of the
    family, or a dynamic image size.
    """

    def bind(model_inputs: Sequence[TensorInfo], model_outputs: Sequence[TensorInfo]) -> Ports:
        inputs = expect((image,), ())(model_inputs, ()).inputs
        pairs = {output.name.removesuffix(":0"): output for output in model_outputs if len(output.shape) == 2}
        found = {}
        for role, name in OUTPUTS[network].items():
            typed = {own: pair for own, pair in pairs.items() if (pair.dtype.kind in "iu") == (role == "ids")}
            for output in [*filter(None, [typed.get(name)]), *typed.values()][:1]:
                found[role] = output
        other = next((o for o, names in OUTPUTS.items() if o != network and pairs.keys() & names.values()), None)
        if other or len(found) < 2 or len({output.shape[1] for output in found.values()} - {None}) > 1:
            has = "; ".join(map(str, model_outputs)) or "none"
            raise ModelError(
                "the model does not fit this network: its contract asks for integer class ids '{ids}' and float "
                "probabilities '{probabilities}', both (batch, steps); ".format(**OUTPUTS[network])
                + f"the model has {has}{f', as {other} has' if other else ''}",
                remedy=f"Run {other} with it." if other else "Check that the file was exported for this network.",
            )
        ports = Ports(inputs, found)
        ports.image_size(image.role)
        return ports

    return bind


def characters(path: str | None) -> Sequence[str]:
    """The characters for a manifest, where they are known."""
    return read_characters(path) if path and Path(path).is_file() else ()


def recogniser(network: str, image: Port, *, with_confidence: bool, **more: Any) -> Network:
    """A :class:`Network` that reads text: exact matches and edit distance, a line per image."""
    return image_network(
        bind=binder(network, image),
        metric=lambda _spec, data: TextMetric(data.unspellable if isinstance(data, TextLabels) else 0),
        writer=lambda _spec, folder, _data, _ports: TextWriter(folder, with_confidence=with_confidence),
        **more,
    )
