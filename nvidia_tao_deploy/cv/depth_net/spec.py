"""What depth_net reads from its spec."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from nvidia_tao_deploy.families.build_spec import FloatTensorRT
from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.fields import field, section
from nvidia_tao_deploy.spec.sections import NetworkSpec, Section

LEAST_SIDE = 14
Side = Annotated[int, Field(ge=LEAST_SIDE)]


class GenTrtEngine(sections.GenTrtEngine):
    """ONNX file in, engine file out."""

    min_height: Side | None = field(None, "Least height of a model whose height is dynamic.")
    opt_height: Side | None = field(None, "Height that the engine is tuned for.")
    max_height: Side | None = field(None, "Greatest height.")
    min_width: Side | None = field(None, "Least width of a model whose width is dynamic.")
    opt_width: Side | None = field(None, "Width that the engine is tuned for.")
    max_width: Side | None = field(None, "Greatest width.")
    tensorrt: FloatTensorRT = section(FloatTensorRT)

    @model_validator(mode="after")
    def _ordered(self) -> GenTrtEngine:
        for side in ("height", "width"):
            given = [value for which in ("min", "opt", "max") if (value := getattr(self, f"{which}_{side}"))]
            if given != sorted(given):
                raise ValueError(f"min_{side} <= opt_{side} <= max_{side} does not hold for {given}")
        return self


class Inference(sections.Inference):
    """Run a model on images."""

    save_raw_npy: bool | None = field(False, "Write .npy files on the network's grid too.")
    save_raw_pfm: bool | None = field(False, "Write .pfm files of the image's size too.")
    save_png16: bool = field(False, "Write 16-bit PNG files of the image's size too.")
    png16_scale: float = field(1000.0, "What values are multiplied with for 16-bit PNG.", gt=0)


class DataSource(Section):
    """One annotation file."""

    dataset_name: str = field("", "Name of the set; NYUDV2 and RelativeMono have rules.")
    data_file: str | None = sections.mandatory("Lines of file names: image(s), then the map and its mask.")
    gt_type: Literal["auto", "depth", "disparity"] = field(
        "auto", "What the maps of a relative model's set hold; auto: disparity for RelativeMono*, else depth."
    )
    gt_scale: float | None = field(
        None, "PNG values are divided by this; null: 1000, or 1 for relative disparities.", gt=0
    )


class Augmentation(Section):
    """Size of images."""

    crop_size: list[Annotated[int, Field(ge=1)]] = field(
        [518, 518], "Height and width where the model leaves it open.", min_length=2, max_length=2
    )


class Images(Section):
    """Annotation files and how they are run."""

    data_sources: list[DataSource] | None = field(None, "Annotation files.")
    batch_size: int = field(1, "Images per batch where the action sets none.", ge=1)
    augmentation: Augmentation = section(Augmentation)


class Dataset(Section):
    """Images and ground truth."""

    dataset_name: str = field("StereoDataset", "StereoDataset for pairs, else one image each.")
    min_depth: float | None = field(None, "Ground truth counts above this; null is 0.001.", ge=0)
    max_depth: float | None = field(None, "Ground truth counts below this; null is 10.", ge=0)
    max_disparity: float = field(416, "Where model.max_disparity is 0.", gt=0)
    test_dataset: Images = section(Images, "For evaluate.")
    infer_dataset: Images = section(Images, "For inference.")

    @model_validator(mode="after")
    def _range(self) -> Dataset:
        if self.min_depth and self.max_depth and self.min_depth > self.max_depth:
            raise ValueError(f"max_depth {self.max_depth:g} is below min_depth {self.min_depth:g}")
        return self


class Model(Section):
    """Facts about the trained network."""

    model_type: str = field("MetricDepthAnything", "Relative* gives inverse depth up to a scale.")
    max_disparity: float = field(416, "Disparities above this are not evaluated.", ge=0)


class Spec(NetworkSpec, network="depth_net"):
    """Spec of depth_net."""

    model: Model = section(Model)
    dataset: Dataset = section(Dataset)
    gen_trt_engine: GenTrtEngine = section(GenTrtEngine)
    inference: Inference = section(Inference)
