"""What classification_tf2 reads from its spec."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator

from nvidia_tao_deploy.families.build_spec import TF2_BUILD, TF2_WORKSPACE
from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.fields import field, section
from nvidia_tao_deploy.spec.sections import NetworkSpec, Section, lower


def _one_or_three(value: list[float]) -> list[float]:
    if len(value) not in (1, 3):
        raise ValueError(f"one value per channel is needed, 1 or 3, not {len(value)}")
    return value


class GenTrtEngine(sections.GenTrtEngine):
    """ONNX file in, engine file out."""

    # The key gen_trt_engine.batch_size of this network's files means calibration (spec/drift.py moves it there).
    batch_size: sections.BatchSize = field(
        -1, "Fixed batch for a model with a dynamic one; -1 keeps what the model has.", alias="fixed_batch_size"
    )


class Evaluate(sections.Evaluate):
    """Measure a model on images in one folder per class."""

    dataset_path: str | None = sections.mandatory("Folder with one sub-folder of images per class.")
    batch_size: sections.BatchSize = field(64, "Images per batch.")
    top_k: int = field(3, "A hit is a label among the k best classes.", ge=1)
    classmap: str | None = field(None, "JSON of class name to index; else the sorted folders.")


class Inference(sections.Inference):
    """Run a model on images."""

    image_dir: str | None = sections.mandatory("Folder of images.")
    classmap: str | None = field(
        None, "JSON of class name to index; else evaluate.classmap, else the folders of evaluate.dataset_path."
    )
    batch_size: sections.BatchSize = field(-1, "Images per batch; -1 is evaluate.batch_size.")


class Augmentation(Section):
    """Placing of images."""

    enable_center_crop: bool = field(True, "Resize over the input size and cut the centre.")


class Dataset(Section):
    """How images were prepared in training."""

    preprocess_mode: Annotated[Literal["caffe", "torch", "tf"], BeforeValidator(lower)] = field(
        "caffe", "Arithmetic on grey levels."
    )
    image_mean: Annotated[list[float], AfterValidator(_one_or_three)] = field(
        [103.939, 116.779, 123.68], "Mean of mode caffe on the scale 0..255, in the order b, g, r; one value for grey."
    )
    augmentation: Augmentation = section(Augmentation)


class Model(Section):
    """Facts about the trained network."""

    resize_interpolation_method: Annotated[Literal["bilinear", "bicubic"], BeforeValidator(lower)] = field(
        "bilinear", "How images are resized."
    )
    input_image_depth: Literal[8, 16] = field(8, "Bits of a grey level; 16 for one channel only.")


class Spec(NetworkSpec, network="classification_tf2", changes={"gen_trt_engine": GenTrtEngine, **TF2_BUILD}):
    """Spec of classification_tf2."""

    drift = (TF2_WORKSPACE,)

    data_format: Annotated[Literal["channels_first", "channels_last"], BeforeValidator(lower)] = field(
        "channels_first", "Layout of the input where the model's shape leaves it open."
    )
    dataset: Dataset = section(Dataset)
    model: Model = section(Model)
    evaluate: Evaluate = section(Evaluate, "Measure a model on annotated data.")
    inference: Inference = section(Inference)
