"""What sparse4d reads from its spec."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.sections import NetworkSpec, Section

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Lower = BeforeValidator(lambda value: str(value).lower())
GIB = 1024  # MiB


class TensorRT(sections.TensorRT):
    """How the engine is built."""

    data_type: Annotated[Literal["fp32", "fp16", "bf16"], Lower] = Field(  # type: ignore[assignment]
        default="fp32", description="Precision of the engine; this network has no int8. data_type above it is the same."
    )
    workspace_size: int = Field(default=4 * GIB, ge=0, description="Builder workspace in MiB; 0 is TensorRT's default.")


class GenTrtEngine(sections.GenTrtEngine):
    """ONNX file in, engine file out."""

    trt_engine: str | None = Field(default=None, description="Another name of save_engine.")
    save_engine: str | None = sections.mandatory("The engine file to write.")
    data_type: Annotated[Literal["fp32", "fp16", "bf16"], Lower] = Field(
        default="fp32", description="Precision of the engine, in any case."
    )
    workspace_size: float = Field(default=4.0, ge=0.1, description="Builder workspace in GiB.")
    overwrite: bool = Field(default=False, description="Replace an engine that stands at save_engine.")
    tensorrt: TensorRT = Field(default_factory=TensorRT, description="How the engine is built.")

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

    num_gpus: Literal[1] = Field(default=1, description="Frames depend on each other: one GPU runs them all.")
    gpu_ids: sections.GpuIds = Field(default=[0], max_length=1, description="The GPU, an index into the visible ones.")
    manifest: str | None = sections.mandatory("JSON list of frames.")
    num_output: Count = Field(default=300, description="Detections of a frame, at most.")
    score_threshold: Share = Field(default=0.05, description="Least class score of a detection.")
    tracking_threshold: Share = Field(default=0.2, description="Least class score of an instance that gets an id.")
    confidence_decay: Share = Field(default=0.8, description="What is left of an instance's confidence a frame later.")
    max_time_interval: float = Field(default=2.0, gt=0, description="Seconds after which instances are forgotten.")
    save_raw: bool = Field(default=False, description="Write the model's outputs of every frame.")
    overwrite: bool = Field(default=False, description="Replace the results of an earlier run.")


class Dataset(Section):
    """How camera images of a manifest become the network's input, as in training."""

    mean: list[float] = Field(
        default=[123.675, 116.28, 103.53], min_length=3, max_length=3, description="Mean per input channel, 0..255."
    )
    std: list[Annotated[float, Field(gt=0)]] = Field(
        default=[58.395, 57.12, 57.375], min_length=3, max_length=3, description="Deviation per input channel, 0..255."
    )
    to_rgb: bool = Field(default=True, description="Swap red and blue of the RGB image, so that the input is B, G, R.")
    bot_pct_lim: list[float] = Field(
        default=[0.0, 0.0], min_length=2, max_length=2, description="Share cut from the bottom: the mean of the two."
    )


class Model(Section):
    """Sizes of the exported network; the model must have them."""

    num_cameras: Count = Field(default=6, description="Cameras.")
    input_height: Count = Field(default=256, description="Height of their images, pixels.")
    input_width: Count = Field(default=448, description="Width of their images, pixels.")
    num_queries: Count = Field(default=900, description="Queries.")
    num_temp_instances: Count = Field(default=600, description="Instances kept from frame to frame.")
    embed_dims: Count = Field(default=256, description="Length of an instance's feature.")
    anchor_dims: Literal[11] = Field(default=11, description="Length of an anchor.")
    num_classes: Count = Field(default=7, description="Classes.")


class Plugin(Section):
    """The MSDA plugin of other runtimes. It is not needed here: its nodes are written in standard operators."""

    path: str | None = Field(default="", description="Library; not loaded. It is checked where sha256 is given.")
    sha256: str | None = Field(default="", description="Its hash.")


class Spec(NetworkSpec):
    """Spec of sparse4d."""

    network: ClassVar[str] = "sparse4d"

    model: Model = Field(default_factory=Model, description="Sizes of the exported network; the model must have them.")
    plugin: Plugin = Field(default_factory=Plugin, description="The MSDA plugin of other runtimes.")
    dataset: Dataset = Field(default_factory=Dataset, description="How camera images become the network's input.")
    gen_trt_engine: GenTrtEngine = Field(default_factory=GenTrtEngine, description="ONNX file in, engine file out.")
    inference: Inference = Field(default_factory=Inference, description="Detect and track over frames.")

    @model_validator(mode="after")
    def _one_stream(self) -> Spec:
        if self.runtime.ranks > 1:
            raise ValueError("runtime.ranks must be 1: frames depend on each other")
        if self.model.num_temp_instances > self.model.num_queries:
            raise ValueError("model.num_temp_instances is more than model.num_queries")
        if self.inference.num_output > self.model.num_queries:
            raise ValueError("inference.num_output is more than model.num_queries")
        return self
