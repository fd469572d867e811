"""What a network is: data, plus the few functions that are really its own.

Actions are written once against :class:`Network`; a network's module says which spec, dataset, transform,
decoder, metric and writer it has, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

from nvidia_tao_deploy.data.sample import Dataset, Sample
from nvidia_tao_deploy.errors import ModelError, SpecError, UsageError
from nvidia_tao_deploy.metrics.metric import Metric
from nvidia_tao_deploy.runtime.session import Session, TensorInfo
from nvidia_tao_deploy.transforms.transform import Geometry, Transform

if TYPE_CHECKING:
    from onnx import ModelProto

    from nvidia_tao_deploy.spec.sections import NetworkSpec

# Raw outputs by role, each (n, ...), and the n geometries -> n predictions in source coordinates.
Decoder = Callable[[Mapping[str, NDArray[Any]], Sequence[Geometry]], Sequence[Any]]


class Writer(Protocol):
    """Turns predictions into files. Called in dataset order, from one thread.

    Both methods raise DataError where a file cannot be written, or the sample's own cannot be read.
    """

    def write(self, sample: Sample, prediction: Any) -> None:
        """Write everything this sample leaves behind."""
        ...

    def close(self) -> list[Path]:
        """Finish files that span samples; the folders and files a person should look at."""
        ...


@dataclass(frozen=True)
class Port:
    """One input or output a network's contract asks for.

    Attributes:
        role: the name our code uses for it.
        names: names seen in exports, besides the role itself.
        rank: number of dimensions, batch included.
        channels: allowed sizes of axis 1 (e.g. (1, 3)); empty: any.
        floats: values are floating-point; else they may be anything.
    """

    role: str
    names: tuple[str, ...] = ()
    rank: int = 4
    channels: tuple[int, ...] = ()
    floats: bool = False

    def fits(self, tensor: TensorInfo) -> bool:
        """Rank, type and channel count agree with the contract."""
        if len(tensor.shape) != self.rank or (self.floats and tensor.dtype.kind in "iub"):
            return False
        return not self.channels or tensor.shape[1] is None or tensor.shape[1] in self.channels

    def __str__(self) -> str:
        plural = "s" * (self.channels != (1,))
        channels = f" with {' or '.join(map(str, self.channels))} channel{plural}" if self.channels else ""
        return f"'{self.role}' of rank {self.rank}{channels}{' of floats' if self.floats else ''}"


@dataclass(frozen=True)
class Ports:
    """A model's tensors under the roles its network gives them, and the file that holds the model."""

    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]
    source: Path | None = None

    def image_size(self, role: str, layout: str = "NCHW") -> tuple[int, int]:
        """(width, height) of an image input.

        Raises:
            ModelError: height or width is dynamic.
        """
        first = layout.index("H")
        height, width = self.inputs[role].shape[first : first + 2]
        if height is None or width is None:
            raise ModelError(
                f"input '{self.inputs[role].name}' has a dynamic height or width",
                remedy="Export the model with a fixed image size.",
            )
        return width, height


Binder = Callable[[Sequence[TensorInfo], Sequence[TensorInfo]], Ports]


def expect(inputs: Sequence[Port], outputs: Sequence[Port]) -> Binder:
    """A binder that finds each port by name, else by position where the counts agree.

    The binder raises ModelError naming what the contract asks for and what the model has.
    """

    def bind(model_inputs: Sequence[TensorInfo], model_outputs: Sequence[TensorInfo]) -> Ports:
        return Ports(_match("input", inputs, model_inputs), _match("output", outputs, model_outputs))

    return bind


def _match(kind: str, ports: Sequence[Port], tensors: Sequence[TensorInfo]) -> dict[str, TensorInfo]:
    by_name = {tensor.name: tensor for tensor in tensors}
    named = [next((by_name[n] for n in (port.role, *port.names) if n in by_name), None) for port in ports]
    if None in named and len(ports) == len(tensors):
        named = list(tensors)
    found = {port.role: tensor for port, tensor in zip(ports, named, strict=True) if tensor and port.fits(tensor)}
    if len(found) < len(ports):
        missing = ", ".join(str(port) for port in ports if port.role not in found)
        has = "; ".join(map(str, tensors)) or "none"
        raise ModelError(
            f"the model does not fit this network: its contract asks for {kind} {missing}; the model has {has}",
            remedy="Check that the file was exported for this network.",
        )
    return found


def open_one(spec: Any, action: str, opened: Callable[[Path], Session]) -> Session:
    """The session of the one file that ``<action>.trt_engine`` names.

    Raises:
        SpecError: it names none.
    """
    return opened(Path(spec.require(f"{action}.trt_engine")))


def no_calibration(spec: Any) -> Any:
    """SpecError: a folder of images is no input of this network."""
    raise SpecError(
        "this network has no calibration images",
        where=spec.where("gen_trt_engine.tensorrt.calibration.cal_image_dir"),
        remedy="Remove cal_image_dir.",
    )


def _engines_only(*_: Any) -> Any:
    raise UsageError("this network only builds engines", remedy="Run gen_trt_engine.")


@dataclass(frozen=True)
class Network:
    """A network, described once.

    A network that only builds engines leaves out everything from ``dataset`` on.

    Attributes:
        spec: its typed spec, which names the network.
        bind: model tensors -> roles; the check that a model fits the contract: ModelError.
        transform: (spec, ports) -> transform; the same one for calibration, evaluate and inference. ModelError or
            SpecError where the model and what the spec says of it do not fit, or a size that must be fixed is not.
        calibration: spec -> samples whose files feed INT8 calibration; raises as ``dataset``.
        dataset: (spec, "evaluate" | "inference") -> samples; SpecError where a source is not named, DataError where
            files are missing or malformed.
        decode: (spec, ports, action) -> decoder; raises as ``transform``.
        metric: (spec, dataset) -> metric.
        writer: (spec, results folder, dataset, ports) -> writer.
        batch_size: (spec, action) -> images per batch that the spec asks for.
        labels: spec -> class names known at build time, for the manifest.
        graph: (spec, model as loaded) -> model to build, where that is another one.
        stride: ports -> what an open height or width is a multiple of, where a build proposes sizes.
        check_classes: (spec, classes of the model) -> ModelError where the spec has others; None: outputs show them.
        open: (spec, action, function that opens a file) -> session.
        sidecars: ONNX file -> files and folders beside it that its engine needs beside itself too.
        sources: ONNX file that compare is given -> ONNX files of the whole model, by the ending of the engine's stem.
    """

    spec: type[NetworkSpec]
    bind: Binder
    transform: Callable[[Any, Ports], Transform]
    calibration: Callable[[Any], Dataset] = no_calibration
    dataset: Callable[[Any, str], Dataset] = _engines_only
    decode: Callable[[Any, Ports, str], Decoder] = _engines_only
    metric: Callable[[Any, Dataset], Metric] = _engines_only
    writer: Callable[[Any, Path, Dataset, Ports], Writer] = _engines_only
    batch_size: Callable[[Any, str], int] = _engines_only
    labels: Callable[[Any], Sequence[str]] = lambda _spec: ()
    graph: Callable[[Any, ModelProto], ModelProto] = lambda _spec, model: model
    stride: Callable[[Ports], int] = lambda _ports: 32
    check_classes: Callable[[Any, int], None] | None = None
    open: Callable[[Any, str, Callable[[Path], Session]], Session] = open_one
    sidecars: Callable[[Path], Sequence[Path]] = lambda _onnx_file: ()
    sources: Callable[[Path], Mapping[str, Path]] = lambda onnx_file: {"": onnx_file}

    @property
    def name(self) -> str:
        """Command name; also the name in status messages."""
        return self.spec.network

    def bound(self, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo], path: Path) -> Ports:
        """The ports of the model file ``path``.

        Raises:
            ModelError: it does not fit; the file is named.
        """
        try:
            return replace(self.bind(inputs, outputs), source=path)
        except ModelError as error:
            error.where = error.where or str(path)
            raise
