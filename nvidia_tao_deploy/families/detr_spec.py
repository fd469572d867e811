"""The spec sections of query detectors: deformable_detr, dino, rtdetr, and in part the prompted ones."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, PrivateAttr, model_validator

from nvidia_tao_deploy.errors import SpecError
from nvidia_tao_deploy.families.augmentation_spec import Mean, Std
from nvidia_tao_deploy.predictions.drawing import parse_color
from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.fields import field, section
from nvidia_tao_deploy.spec.sections import NetworkSpec, Section, StrList

# ViT-L attention does not build in a smaller workspace (MiB).
LARGE_VIT = ("vit_large_dinov2", "vit_large_nvdinov2")
LARGE_VIT_WORKSPACE = 20480


def _color(color: str | list[int]) -> str | list[int]:
    try:
        parse_color(color)
    except SpecError as error:
        raise ValueError(str(error)) from error
    return color


class Inference(sections.Inference):
    """Run a model on images."""

    conf_threshold: float = field(0.5, "Detections below this score are left out.", ge=0, le=1)
    color_map: dict[str, Annotated[str | list[int], AfterValidator(_color)]] | None = field(
        None, "Colour by class name; classes without one are not drawn. null draws all."
    )


class TestData(Section):
    """Annotated images."""

    image_dir: str | None = field(None, "Folder that the annotation file's names are relative to.")
    json_file: str | None = field(None, "COCO annotation file.")


class InferenceData(Section):
    """Images without annotations."""

    image_dir: StrList = field([], "Folders of images, searched recursively. One or a list.")
    classmap: str | None = field(None, "Text file with one class name per line, in the order of the model's classes.")


class Augmentation(Section):
    """Normalisation of images, the same in every action."""

    input_mean: Mean = Field(default=[0.485, 0.456, 0.406])
    input_std: Std = Field(default=[0.229, 0.224, 0.225])


class Dataset(Section):
    """Images and labels."""

    test_data_sources: TestData = section(TestData, "Annotated images for evaluate.")
    infer_data_sources: InferenceData = section(InferenceData, "Images for inference.")
    batch_size: sections.BatchSize = field(4, "Images per batch where the action sets none.")
    num_classes: int | None = field(
        None, "Classes of the training; the model's own count is used, a difference is told.", ge=1
    )
    eval_class_ids: sections.IntList | None = field(None, "Category ids to score; null is all.")


class NormalizedDataset(Dataset):
    """Images and labels."""

    augmentation: Augmentation = section(Augmentation, "Normalisation of images.")


class Model(Section):
    """Facts about the trained network."""

    num_select: int = field(300, "Detections kept per image.", ge=1, le=1000)


class BackboneModel(Model):
    """Facts about the trained network."""

    backbone: str = field("resnet_50", "Backbone; ViT-L needs a larger workspace.")


class LargeBackboneSpec(NetworkSpec):
    """A spec whose ``model.backbone`` (or its ``type``) may be a ViT-L: at least ``LARGE_VIT_WORKSPACE`` is used."""

    _raised_from: int | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _room_for_large_vit(self) -> LargeBackboneSpec:
        options, model = self.gen_trt_engine.tensorrt, getattr(self, "model", None)
        backbone = getattr(model, "backbone", "")
        if getattr(backbone, "type", backbone) in LARGE_VIT and 0 < options.workspace_size < LARGE_VIT_WORKSPACE:
            self._raised_from = options.workspace_size
            # Through __dict__: it must not count as set by the user.
            options.__dict__["workspace_size"] = LARGE_VIT_WORKSPACE
        return self

    @property
    def notes(self) -> list[str]:
        """What the reader should know about the file."""
        if self._raised_from is None:
            return self._notes
        small = f"workspace_size {self._raised_from} MiB is too small for a ViT-L backbone"
        return [*self._notes, f"{small}: {LARGE_VIT_WORKSPACE} is used"]
