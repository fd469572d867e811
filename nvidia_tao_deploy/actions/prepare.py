"""From the user's ONNX file to the graph that is built: the passes in their order, and what they found out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.errors import DataError
from nvidia_tao_deploy.network import Network, Ports
from nvidia_tao_deploy.pipeline.progress import say
from nvidia_tao_deploy.pipeline.stream import calibration_batches
from nvidia_tao_deploy.transforms.transform import Transform

if TYPE_CHECKING:
    from onnx import ModelProto

QUANTIZED = ("int8", "fp8")
PARITY_BATCHES = 4


@dataclass
class Prepared:
    """The graph to build, and the facts about it that the manifest keeps."""

    source: ModelProto
    model: ModelProto
    ports: Ports
    transform: Transform
    images: CalibrationImages | None
    calibration: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)


class CalibrationImages:
    """The images the spec names for calibration, through the evaluate transform, in a fixed seeded order."""

    def __init__(self, network: Network, spec: Any, transform: Transform, ports: Ports, limit: int | None) -> None:
        """Choose the images.

        Raises:
            DataError: no image, or fewer than ``cal_batches`` x ``cal_batch_size``.
        """
        from nvidia_tao_deploy.calibration.select import choose

        options = spec.gen_trt_engine.tensorrt.calibration
        dataset = network.calibration(spec)
        by_path = {str(sample.path): sample for sample in (dataset[i] for i in range(len(dataset)))}
        wanted = options.cal_batches * options.cal_batch_size
        count = min(limit, len(by_path)) if limit else wanted
        paths = choose([Path(path) for path in by_path], count, options.seed)
        self.samples: list[Sample] = [by_path[str(path)] for path in paths]
        self.batch_size: int = options.cal_batch_size
        self._transform, self._inputs, self._strict = transform, tuple(ports.inputs.values()), spec.strict

    def batches(self, batch_size: int | None = None) -> Iterator[dict[str, NDArray[Any]]]:
        """Batches of model inputs by tensor name, read anew at every call.

        Raises:
            DataError: not one of the images can be read.
        """
        found = False
        size = batch_size or self.batch_size
        for batch in calibration_batches(self.samples, self._transform, self._inputs, size, strict=self._strict):
            found = True
            yield batch
        if not found:
            raise DataError("not one calibration image can be read", where=str(self.samples[0].path))


def prepare(network: Network, spec: Any, *, fp16_with_int8: bool) -> Prepared:
    """Load the model and write the asked-for precision into its graph.

    Args:
        network: which network.
        spec: its typed spec.
        fp16_with_int8: what is not quantized becomes fp16 in the graph (strongly typed builders); False where the
            builder does that itself by a flag.

    Raises:
        ModelError: the file is broken or does not fit the network.
        DataError: calibration images are missing or unreadable.
        BuildError: the precision cannot be put into this graph.
    """
    from nvidia_tao_deploy.graph import load, lower, precision, quantize, simplify

    options = spec.gen_trt_engine.tensorrt
    path = Path(spec.require("gen_trt_engine.onnx_file"))
    source = load.load_model(path)
    ports = network.bind(load.model_inputs(source), load.model_outputs(source))
    prepared = Prepared(source, source, ports, network.transform(spec, ports), None)
    if options.simplify:
        report = simplify.simplify_report(prepared.model)
        prepared.model = report.model
        prepared.notes += report.notes
    if options.plugins != "keep":
        lowered = lower.lower_plugins(prepared.model)
        prepared.model = lowered.model
        prepared.notes += [f"lowered {kind} '{name}' to standard operators" for name, kind in lowered.lowered]
        prepared.notes += [f"kept {kind} '{name}': {reason}" for name, kind, reason in lowered.unsupported]
    if spec.gen_trt_engine.batch_size > 0:
        prepared.model = simplify.set_batch(prepared.model, spec.gen_trt_engine.batch_size)
    wanted = options.data_type
    if quantize.is_quantized(prepared.model):
        prepared.notes.append(f"the model carries its own quantization, so data_type {wanted} adds nothing to it")
        return prepared
    layers = dict(entry.rsplit(":", 1) for entry in options.layers_precision)
    if wanted in QUANTIZED:
        _quantize(network, spec, prepared, layers)
    elif options.calibration.cal_image_dir:
        limit = PARITY_BATCHES * options.calibration.cal_batch_size
        prepared.images = CalibrationImages(network, spec, prepared.transform, ports, limit)
    if wanted in ("fp16", "bf16") or (wanted in QUANTIZED and fp16_with_int8 and not options.strict_types):
        cast = precision.cast_float(
            prepared.model,
            wanted if wanted not in QUANTIZED else "fp16",
            layers=layers,
            ranges=_value_ranges(prepared),
        )
        prepared.model = cast.model
        prepared.notes += [f"layers_precision '{glob}' names no node" for glob in cast.unmatched]
    return prepared


def _quantize(network: Network, spec: Any, prepared: Prepared, layers: Mapping[str, str]) -> None:
    """Calibrate (or take the scales of a cache that fits) and insert Q/DQ pairs."""
    raise NotImplementedError


def _value_ranges(prepared: Prepared) -> dict[str, tuple[float, float]] | None:
    """(min, max) of every float tensor on a few calibration images: what fp16 cannot hold stays fp32."""
    if prepared.images is None:
        return None
    from nvidia_tao_deploy.calibration.ranges import value_ranges

    return value_ranges(prepared.model, islice(prepared.images.batches(), PARITY_BATCHES))
