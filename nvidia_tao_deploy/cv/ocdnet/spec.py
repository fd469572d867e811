"""What ocdnet reads from its spec."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.sections import NetworkSpec, Section, StrList

ImageMode = Literal["BGR", "RGB", "GRAY"]


class GenTrtEngine(sections.GenTrtEngine):
    """ONNX file in, engine file out."""

    width: int = Field(default=1280, ge=1, description="Input width of a model whose width is dynamic.")
    height: int = Field(default=736, ge=1, description="Input height of a model whose height is dynamic.")
    img_mode: ImageMode | None = Field(
        default=None, description="Channel order of calibration; null is dataset.validate_dataset.args.img_mode."
    )

    # The profile of a dynamic height or width has one size.
    min_width = opt_width = max_width = property(lambda self: self.width)
    min_height = opt_height = max_height = property(lambda self: self.height)


class PostProcessingArgs(Section):
    """From the probability map to regions."""

    thresh: float = Field(default=0.3, ge=0, le=1, description="Probability above which a pixel is text.")
    box_thresh: float = Field(default=0.55, ge=0, le=1, description="Least mean probability inside a region.")
    max_candidates: int = Field(default=1000, ge=1, description="Contours that are looked at.")
    unclip_ratio: float = Field(default=1.5, ge=0, description="How far a region grows.")


class PostProcessing(Section):
    """From the probability map to regions."""

    type: Literal["SegDetectorRepresenter"] = Field(default="SegDetectorRepresenter", description="The one method.")
    args: PostProcessingArgs = Field(default_factory=PostProcessingArgs, description="Its settings.")


class MetricArgs(Section):
    """Settings of the metric."""

    is_output_polygon: bool = Field(default=False, description="Polygons of any number of corners, not rectangles.")


class Metric(Section):
    """The metric of evaluate."""

    type: Literal["QuadMetric"] = Field(default="QuadMetric", description="The one metric.")
    args: MetricArgs = Field(default_factory=MetricArgs, description="Its settings.")


class Evaluate(sections.Evaluate):
    """Measure a model on annotated data."""

    post_processing: PostProcessing = Field(default_factory=PostProcessing, description="From map to regions.")
    metric: Metric = Field(default_factory=Metric, description="The metric.")
    batch_size: sections.BatchSize = Field(default=1, description="Images per batch.")


class Inference(sections.Inference):
    """Run a model on images."""

    input_folder: StrList = Field(
        default=[], description="Folders of images. One folder or a list.", json_schema_extra={"mandatory": True}
    )
    width: int = Field(default=1280, ge=1, description="Width of the model's input; if set, it must be that.")
    height: int = Field(default=736, ge=1, description="Height of the model's input; if set, it must be that.")
    img_mode: ImageMode | None = sections.mandatory("Channel order of the training: BGR, RGB or GRAY.")
    polygon: bool = Field(default=False, description="Polygons of any number of corners, not rectangles.")
    show: bool = Field(default=False, description="Has no effect: pictures are written, windows are not opened.")
    post_processing: PostProcessing = Field(default_factory=PostProcessing, description="From map to regions.")
    batch_size: sections.BatchSize = Field(default=1, description="Images per batch.")


class ResizeArgs(Section):
    """Settings of Resize2D."""

    short_size: list[Annotated[int, Field(ge=1)]] | int = Field(
        default=[1280, 736], description="Width and height of the model's input; one number fits no model."
    )
    resize_text_polys: bool = Field(default=True, description="Outlines go with the image, whatever is set here.")


class PreProcess(Section):
    """One step before the network."""

    type: Literal["Resize2D"] = Field(default="Resize2D", description="The one step.")
    args: ResizeArgs = Field(default_factory=ResizeArgs, description="Its settings.")


class DatasetArgs(Section):
    """How images and labels are read."""

    img_mode: ImageMode = Field(default="BGR", description="Channel order of the training.")
    pre_processes: list[PreProcess] | None = Field(default=None, description="Steps before the network.")
    ignore_tags: list[str] = Field(default=["*", "###"], description="Texts of regions that count neither way.")
    keep_empty: bool = Field(default=False, description="Evaluate images without any region too.")


class ValidateDataset(Section):
    """Annotated images."""

    data_name: Literal["ICDAR2015Dataset", "UberDataset"] = Field(
        default="ICDAR2015Dataset", description="Form of the label files."
    )
    data_path: StrList = Field(default=[], description="Folders with img/ and gt/, or list files. One or a list.")
    args: DatasetArgs = Field(default_factory=DatasetArgs, description="How they are read.")


class Dataset(Section):
    """Images and labels."""

    validate_dataset: ValidateDataset = Field(default_factory=ValidateDataset, description="For evaluate.")


class Spec(NetworkSpec):
    """Spec of ocdnet."""

    network: ClassVar[str] = "ocdnet"

    dataset: Dataset = Field(default_factory=Dataset, description="Images and labels.")
    gen_trt_engine: GenTrtEngine = Field(default_factory=GenTrtEngine, description="ONNX file in, engine file out.")
    evaluate: Evaluate = Field(default_factory=Evaluate, description="Measure a model on annotated data.")
    inference: Inference = Field(default_factory=Inference, description="Run a model on images.")
