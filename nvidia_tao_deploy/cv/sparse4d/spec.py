"""What sparse4d reads from its spec."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from nvidia_tao_deploy.families.build_spec import FloatPrecision, FloatTensorRT
from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.fields import field, section
from nvidia_tao_deploy.spec.sections import NetworkSpec, Section

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
GIB = 1024  # MiB


class TensorRT(FloatTensorRT):
    """How the engine is built."""

    workspace_size: int = field(4 * GIB, "Builder workspace in MiB; 0 is TensorRT's default.", ge=0)


class GenTrtEngine(sections.GenTrtEngine):
    """ONNX file in, engine file out."""

    trt_engine: str | None = field(None, "Another name of save_engine.")
    save_engine: str | None = sections.mandatory("The engine file to write.")
    data_type: FloatPrecision = field("fp32", "Precision of the engine, in any case.")
    workspace_size: float = field(4.0, "Builder workspace in GiB.", ge=0.1)
    overwrite: bool = field(False, "Replace an engine that stands at save_engine.")
    tensorrt: TensorRT = section(TensorRT)

    @model_validator(mode="after")
    def _one_of_each(self) -> GenTrtEngine:
        """The keys of this network and those that all networks have say the same."""
        if self.save_engine and self.trt_engine and self.save_engine != self.trt_engine:
            raise ValueError("save_engine and trt_engine name different files")
        given = self.tensorrt.model_fields_set
        if "data_type" in given and "data_type" in self.model_fields_set and self.data_type != self.tensorrt.data_type:
            raise ValueError("data_type and tensorrt.data_type differ")
        self.__dict__.update(trt_engine=self.save_engine or self.trt_engine)
        if "data_type" not in given:
            self.tensorrt.__dict__.update(data_type=self.data_type)
        if "workspace_size" not in given:
            self.tensorrt.__dict__.update(workspace_size=round(self.workspace_size * GIB))
        return self


class Inference(sections.Inference):
    """Detect and track over frames."""

    num_gpus: Literal[1] = field(1, "Frames depend on each other: one GPU runs them all.")
    gpu_ids: sections.GpuIds = field([0], "The GPU, an index into the visible ones.", max_length=1)
    manifest: str | None = sections.mandatory("JSON list of frames.")
    num_output: Count = field(300, "Detections of a frame, at most.")
    score_threshold: Share = field(0.05, "Least class score of a detection.")
    tracking_threshold: Share = field(0.2, "Least class score of an instance that gets an id.")
    confidence_decay: Share = field(0.8, "What is left of an instance's confidence a frame later.")
    max_time_interval: float = field(2.0, "Seconds after which instances are forgotten.", gt=0)
    save_raw: bool = field(False, "Write the model's outputs of every frame.")
    overwrite: bool = field(False, "Replace the results of an earlier run.")


class Dataset(Section):
    """How camera images of a manifest become the network's input, as in training."""

    mean: list[float] = field([123.675, 116.28, 103.53], "Mean per input channel, 0..255.", min_length=3, max_length=3)
    std: list[Annotated[float, Field(gt=0)]] = field(
        [58.395, 57.12, 57.375], "Deviation per input channel, 0..255.", min_length=3, max_length=3
    )
    to_rgb: bool = field(True, "Swap red and blue of the RGB image, so that the input is B, G, R.")
    bot_pct_lim: list[float] = field(
        [0.0, 0.0], "Share cut from the bottom: the mean of the two.", min_length=2, max_length=2
    )


class Model(Section):
    """Sizes of the exported network; the model must have them."""

    num_cameras: Count = field(6, "Cameras.")
    input_height: Count = field(256, "Height of their images, pixels.")
    input_width: Count = field(448, "Width of their images, pixels.")
    num_queries: Count = field(900, "Queries.")
    num_temp_instances: Count = field(600, "Instances kept from frame to frame.")
    embed_dims: Count = field(256, "Length of an instance's feature.")
    anchor_dims: Literal[11] = field(11, "Length of an anchor.")
    num_classes: Count = field(7, "Classes.")


class Plugin(Section):
    """The MSDA plugin of other runtimes. It is not needed here: its nodes are written in standard operators."""

    path: str | None = field("", "Library; not loaded. It is checked where sha256 is given.")
    sha256: str | None = field("", "Its hash.")


class Spec(NetworkSpec, network="sparse4d"):
    """Spec of sparse4d."""

    model: Model = section(Model)
    plugin: Plugin = section(Plugin, "The MSDA plugin of other runtimes.")
    dataset: Dataset = section(Dataset, "How camera images become the network's input.")
    gen_trt_engine: GenTrtEngine = section(GenTrtEngine)
    inference: Inference = section(Inference)

    @model_validator(mode="after")
    def _one_stream(self) -> Spec:
        if self.runtime.ranks > 1:
            raise ValueError("runtime.ranks must be 1: frames depend on each other")
        if self.model.num_temp_instances > self.model.num_queries:
            raise ValueError("model.num_temp_instances is more than model.num_queries")
        if self.inference.num_output > self.model.num_queries:
            raise ValueError("inference.num_output is more than model.num_queries")
        return self
