"""What depth_net reads from its spec."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from nvidia_tao_deploy.families.build_spec import Floats
from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.sections import NetworkSpec, Section

LEAST_SIDE = 14
Side = Annotated[int, Field(ge=LEAST_SIDE)]


class TensorRT(sections.TensorRT):
    """How the engine is built."""

    data_type: Floats = Field(  # type: ignore[assignment]
        default="fp32", description="Precision of the engine, in any case; this network has no int8."
    )


class GenTrtEngine(sections.GenTrtEngine):
    """ONNX file in, engine file out."""

    min_height: Side | None = Field(default=None, description="Least height of a model whose height is dynamic.")
    opt_height: Side | None = Field(default=None, description="Height that the engine is tuned for.")
    max_height: Side | None = Field(default=None, description="Greatest height.")
    min_width: Side | None = Field(default=None, description="Least width of a model whose width is dynamic.")
    opt_width: Side | None = Field(default=None, description="Width that the engine is tuned for.")
    max_width: Side | None = Field(default=None, description="Greatest width.")
    tensorrt: TensorRT = Field(default_factory=TensorRT, description="How the engine is built.")

    @model_validator(mode="after")
    def _ordered(self) -> GenTrtEngine:
        for side in ("height", "width"):
            given = [value for which in ("min", "opt", "max") if (value := getattr(self, f"{which}_{side}"))]
            if given != sorted(given):
                raise ValueError(f"min_{side} <= opt_{side} <= max_{side} does not hold for {given}")
        return self


class Inference(sections.Inference):
    """Run a model on images."""

    save_raw_npy: bool | None = Field(default=False, description="Write .npy files on the network's grid too.")
    save_raw_pfm: bool | None = Field(default=False, description="Write .pfm files of the image's size too.")
    save_png16: bool = Field(default=False, description="Write 16-bit PNG files of the image's size too.")
    png16_scale: float = Field(default=1000.0, gt=0, description="What values are multiplied with for 16-bit PNG.")


class DataSource(Section):
    """One annotation file."""

    dataset_name: str = Field(default="", description="Name of the set; NYUDV2 and RelativeMono have rules.")
    data_file: str | None = sections.mandatory("Lines of file names: image(s), then the map and its mask.")
    gt_type: Literal["auto", "depth", "disparity"] = Field(
        default="auto",
        description="What the maps of a relative model's set hold; auto: disparity for RelativeMono*, else depth.",
    )
    gt_scale: float | None = Field(
        default=None, gt=0, description="PNG values are divided by this; null: 1000, or 1 for relative disparities."
    )


class Augmentation(Section):
    """Size of images."""

    crop_size: list[Annotated[int, Field(ge=1)]] = Field(
        default=[518, 518], min_length=2, max_length=2, description="Height and width where the model leaves it open."
    )


class Images(Section):
    """Annotation files and how they are run."""

    data_sources: list[DataSource] | None = Field(default=None, description="Annotation files.")
    batch_size: int = Field(default=1, ge=1, description="Images per batch where the action sets none.")
    augmentation: Augmentation = Field(default_factory=Augmentation, description="Size of images.")


class Dataset(Section):
    """Images and ground truth."""

    dataset_name: str = Field(default="StereoDataset", description="StereoDataset for pairs, else one image each.")
    min_depth: float | None = Field(default=None, ge=0, description="Ground truth counts above this; null is 0.001.")
    max_depth: float | None = Field(default=None, ge=0, description="Ground truth counts below this; null is 10.")
    max_disparity: float = Field(default=416, gt=0, description="Where model.max_disparity is 0.")
    test_dataset: Images = Field(default_factory=Images, description="For evaluate.")
    infer_dataset: Images = Field(default_factory=Images, description="For inference.")


class Model(Section):
    """Facts about the trained network."""

    model_type: str = Field(default="MetricDepthAnything", description="Relative* gives inverse depth up to a scale.")
    max_disparity: float = Field(default=416, ge=0, description="Disparities above this are not evaluated.")


class Spec(NetworkSpec):
    """Spec of depth_net."""

    network: ClassVar[str] = "depth_net"

    model: Model = Field(default_factory=Model, description="Facts about the trained network.")
    dataset: Dataset = Field(default_factory=Dataset, description="Images and ground truth.")
    gen_trt_engine: GenTrtEngine = Field(default_factory=GenTrtEngine, description="ONNX file in, engine file out.")
    inference: Inference = Field(default_factory=Inference, description="Run a model on images.")
