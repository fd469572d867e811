"""What ocdnet reads from its spec."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.fields import field, section
from nvidia_tao_deploy.spec.sections import NetworkSpec, Section, StrList

ImageMode = Literal["BGR", "RGB", "GRAY"]


class GenTrtEngine(sections.GenTrtEngine):
    """ONNX file in, engine file out."""

    width: int = field(1280, "Input width of a model whose width is dynamic.", ge=1)
    height: int = field(736, "Input height of a model whose height is dynamic.", ge=1)
    img_mode: ImageMode | None = field(
        None, "Channel order of calibration; null is dataset.validate_dataset.args.img_mode."
    )

    # The profile of a dynamic height or width has one size.
    min_width = opt_width = max_width = property(lambda self: self.width)
    min_height = opt_height = max_height = property(lambda self: self.height)


class PostProcessingArgs(Section):
    """From the probability map to regions."""

    thresh: float = field(0.3, "Probability above which a pixel is text.", ge=0, le=1)
    box_thresh: float = field(0.55, "Least mean probability inside a region.", ge=0, le=1)
    max_candidates: int = field(1000, "Contours that are looked at.", ge=1)
    unclip_ratio: float = field(1.5, "How far a region grows.", ge=0)


class PostProcessing(Section):
    """From the probability map to regions."""

    type: Literal["SegDetectorRepresenter"] = field("SegDetectorRepresenter", "The one method.")
    args: PostProcessingArgs = section(PostProcessingArgs, "Its settings.")


class MetricArgs(Section):
    """Settings of the metric."""

    is_output_polygon: bool = field(False, "Polygons of any number of corners, not rectangles.")


class Metric(Section):
    """The metric of evaluate."""

    type: Literal["QuadMetric"] = field("QuadMetric", "The one metric.")
    args: MetricArgs = section(MetricArgs, "Its settings.")


class Evaluate(sections.Evaluate):
    """Measure a model on annotated data."""

    post_processing: PostProcessing = section(PostProcessing, "From map to regions.")
    metric: Metric = section(Metric, "The metric.")
    batch_size: sections.BatchSize = field(1, "Images per batch.")


class Inference(sections.Inference):
    """Run a model on images."""

    input_folder: StrList = field([], "Folders of images. One folder or a list.", json_schema_extra={"mandatory": True})
    width: int = field(1280, "Width of the model's input; if set, it must be that.", ge=1)
    height: int = field(736, "Height of the model's input; if set, it must be that.", ge=1)
    img_mode: ImageMode | None = sections.mandatory("Channel order of the training: BGR, RGB or GRAY.")
    polygon: bool = field(False, "Polygons of any number of corners, not rectangles.")
    show: bool = field(False, "Has no effect: pictures are written, windows are not opened.")
    post_processing: PostProcessing = section(PostProcessing, "From map to regions.")
    batch_size: sections.BatchSize = field(1, "Images per batch.")


class ResizeArgs(Section):
    """Settings of Resize2D."""

    short_size: list[Annotated[int, Field(ge=1)]] | int = field(
        [1280, 736], "Width and height of the model's input; one number fits no model."
    )
    resize_text_polys: bool = field(True, "Outlines go with the image, whatever is set here.")


class PreProcess(Section):
    """One step before the network."""

    type: Literal["Resize2D"] = field("Resize2D", "The one step.")
    args: ResizeArgs = section(ResizeArgs, "Its settings.")


class DatasetArgs(Section):
    """How images and labels are read."""

    img_mode: ImageMode = field("BGR", "Channel order of the training.")
    pre_processes: list[PreProcess] | None = field(None, "Steps before the network.")
    ignore_tags: list[str] = field(["*", "###"], "Texts of regions that count neither way.")
    keep_empty: bool = field(False, "Evaluate images without any region too.")


class ValidateDataset(Section):
    """Annotated images."""

    data_name: Literal["ICDAR2015Dataset", "UberDataset"] = field("ICDAR2015Dataset", "Form of the label files.")
    data_path: StrList = field([], "Folders with img/ and gt/, or list files. One or a list.")
    args: DatasetArgs = section(DatasetArgs, "How they are read.")


class Dataset(Section):
    """Images and labels."""

    validate_dataset: ValidateDataset = section(ValidateDataset, "For evaluate.")


class Spec(NetworkSpec, network="ocdnet"):
    """Spec of ocdnet."""

    dataset: Dataset = section(Dataset)
    gen_trt_engine: GenTrtEngine = section(GenTrtEngine)
    evaluate: Evaluate = section(Evaluate)
    inference: Inference = section(Inference)
