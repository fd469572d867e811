"""What custom_vision reads from its spec. Nothing is mandatory: flags name the export, and the export says the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.fields import field, section
from nvidia_tao_deploy.spec.sections import BatchSize, NetworkSpec, Section, StrList

RESULTS = "results/custom_vision"


class Evaluate(sections.Evaluate):
    """Measure a model on a folder of classes, or on COCO annotations."""

    image_dir: str | None = field(None, "Classifier: one folder per class. Detector: images; null: beside label_file.")
    label_file: str | None = field(None, "COCO annotation file of a detector.")


class Inference(sections.Inference):
    """Run a model on images."""

    image_dir: StrList = field([], "Folders of images, searched recursively, or images.")
    threshold: float = field(0.5, "Detections below this score are left out.", ge=0, le=1)


class Dataset(Section):
    """What the export says itself; values set here go first."""

    batch_size: BatchSize = field(1, "Images per batch where the action sets none.")
    labels: str | None = field(None, "One class name per line; null: the export's labels.txt.")
    pixel_format: Literal["bgr", "rgb"] | None = field(
        None, "Channel order of the input; null is the export's Image.BitmapPixelFormat, else bgr."
    )
    pixel_range: Literal["byte", "unit", "signed", "video"] | None = field(
        None,
        "Values of the input: byte 0 to 255, unit 0 to 1, signed -1 to 1, video 16 to 235; null is the "
        "export's Image.NominalPixelRange, else byte.",
    )


class Spec(NetworkSpec, network="custom_vision"):
    """Spec of custom_vision."""

    results_dir: str | None = field(RESULTS, "Folder under which every action writes its own folder.")
    dataset: Dataset = section(Dataset)
    evaluate: Evaluate = section(Evaluate, "Measure a model on annotated data.")
    inference: Inference = section(Inference)

    @model_validator(mode="after")
    def _complete(self) -> Spec:
        """A folder stands for the ONNX file in it; an engine without a path goes into the build's results."""
        build = self.gen_trt_engine
        # Through __dict__: these must not count as set by the user.
        for name, key in (("gen_trt_engine", "onnx_file"), ("evaluate", "trt_engine"), ("inference", "trt_engine")):
            values = getattr(self, name).__dict__
            values[key] = _model_of(values[key], f"{name}.{key}")
        if build.onnx_file and not build.trt_engine:
            folder = Path(build.results_dir or Path(self.results_dir or RESULTS) / "gen_trt_engine")
            build.__dict__["trt_engine"] = str(folder / f"model_{build.tensorrt.data_type}.engine")
        return self


def _model_of(path: str | None, key: str) -> str | None:
    if not path or not Path(path).is_dir():
        return path
    found = list(Path(path).glob("*.onnx"))
    if len(found) != 1:
        raise ValueError(f"{key} is a folder with {len(found)} ONNX files, and an export holds one")
    return str(found[0])
