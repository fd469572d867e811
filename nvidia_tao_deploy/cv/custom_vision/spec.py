"""What custom_vision reads from its spec. Nothing is mandatory: flags name the export, and the export says the rest."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.sections import BatchSize, NetworkSpec, Section, StrList

RESULTS = "results/custom_vision"


class Evaluate(sections.Evaluate):
    """Measure a model on a folder of classes, or on COCO annotations."""

    image_dir: str | None = Field(
        default=None, description="Classifier: one folder per class. Detector: images; null is the annotations' folder."
    )
    label_file: str | None = Field(default=None, description="COCO annotation file of a detector.")


class Inference(sections.Inference):
    """Run a model on images."""

    image_dir: StrList = Field(default=[], description="Folders of images, searched recursively, or images.")
    threshold: float = Field(default=0.5, ge=0, le=1, description="Detections below this score are left out.")


class Dataset(Section):
    """What the export says itself; values set here go first."""

    batch_size: BatchSize = Field(default=1, description="Images per batch where the action sets none.")
    labels: str | None = Field(
        default=None, description="Text file with one class name per line; null is the export's labels.txt."
    )
    pixel_format: Literal["bgr", "rgb"] | None = Field(
        default=None, description="Channel order of the input; null is the export's Image.BitmapPixelFormat, else bgr."
    )
    pixel_range: Literal["byte", "unit", "signed", "video"] | None = Field(
        default=None,
        description="Values of the input: byte 0 to 255, unit 0 to 1, signed -1 to 1, video 16 to 235; null is the "
        "export's Image.NominalPixelRange, else byte.",
    )


class Spec(NetworkSpec):
    """Spec of custom_vision."""

    network: ClassVar[str] = "custom_vision"

    results_dir: str | None = Field(
        default=RESULTS, description="Folder under which every action writes its own folder."
    )
    dataset: Dataset = Field(default_factory=Dataset, description="What the export says itself.")
    evaluate: Evaluate = Field(default_factory=Evaluate, description="Measure a model on annotated data.")
    inference: Inference = Field(default_factory=Inference, description="Run a model on images.")

    @model_validator(mode="after")
    def _complete(self) -> Spec:
        """A folder stands for the ONNX file in it; an engine without a path goes into the build's results."""
        build = self.gen_trt_engine
        # Through __dict__: these must not count as set by the user.
        for section, key in ((build, "onnx_file"), (self.evaluate, "trt_engine"), (self.inference, "trt_engine")):
            section.__dict__[key] = _model_of(getattr(section, key))
        if build.onnx_file and not build.trt_engine:
            folder = Path(build.results_dir or Path(self.results_dir or RESULTS) / "gen_trt_engine")
            build.__dict__["trt_engine"] = str(folder / f"model_{build.tensorrt.data_type}.engine")
        return self


def _model_of(path: str | None) -> str | None:
    found = sorted(Path(path).glob("*.onnx")) if path and Path(path).is_dir() else []
    return str(found[0]) if len(found) == 1 else path
