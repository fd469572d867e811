"""What visual_changenet reads from its spec."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from nvidia_tao_deploy.families.augmentation_spec import HalfAugmentation
from nvidia_tao_deploy.families.detr_spec import LargeBackboneSpec
from nvidia_tao_deploy.families.inspection_spec import PairData
from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.sections import BatchSize, Section

Level = Annotated[int, Field(ge=0, le=255)]


def _label_transform(value: Any) -> Any:
    return "none" if value is None else value.lower() if isinstance(value, str) else value


class TensorRT(sections.TensorRT):
    """How the engine is built."""

    max_batch_size: int = Field(default=8, ge=1, description="Largest batch of the profile.")


class GenTrtEngine(sections.GenTrtEngine):
    """ONNX file in, engine file out."""

    tensorrt: TensorRT = Field(default_factory=TensorRT, description="How the engine is built.")


class Evaluate(sections.Evaluate):
    """Measure a model on annotated pairs."""

    visualize: bool = Field(default=True, description="Task segment: also write the pictures that inference writes.")


class Backbone(Section):
    """The backbone."""

    type: str = Field(default="fan_small_12_p4_hybrid", description="Its name; ViT-L needs a larger workspace.")


class Classify(Section):
    """The head of task classify."""

    difference_module: Literal["euclidean", "learnable"] = Field(
        default="euclidean", description="What the model gives: a distance, or two logits."
    )
    eval_margin: float = Field(
        default=2.0, description="A unit is defective where its distance (learnable: its probability) is over this."
    )


class Model(Section):
    """Facts about the trained network."""

    backbone: Backbone = Field(default_factory=Backbone, description="The backbone.")
    classify: Classify = Field(default_factory=Classify, description="The head of task classify.")


class SegmentData(Section):
    """Pictures before and after, below one folder."""

    root_dir: str = Field(default="", description="Folder of everything below.")
    data_name: str = Field(default="LEVIR", description="LandSCD selects that data set's colours.")
    label_transform: Annotated[Literal["norm", "none"], BeforeValidator(_label_transform)] = Field(
        default="norm", description="norm: label pixels of 255 are change, all others are not; none: class indices."
    )
    num_classes: int = Field(default=2, ge=2, description="Classes of the model.")
    img_size: int = Field(default=224, ge=1, description="Side of the model's input; must be the model's where given.")
    batch_size: BatchSize = Field(default=8, description="Pairs per batch where the action sets none.")
    image_folder_name: str = Field(default="A", description="Folder of the pictures before.")
    change_image_folder_name: str = Field(default="B", description="Folder of the pictures after.")
    list_folder_name: str = Field(default="list", description="Folder of the list files.")
    annotation_folder_name: str = Field(default="label", description="Folder of the label files.")
    train_split: str = Field(default="train", description="List for INT8 calibration, <train_split>.txt.")
    test_split: str = Field(default="test", description="List for evaluate.")
    predict_split: str = Field(default="test", description="List for inference.")
    label_suffix: str = Field(default=".png", pattern="^[^/]+$", description="What label files have for the suffix.")
    augmentation: HalfAugmentation = Field(default_factory=HalfAugmentation, description="Normalisation of images.")
    color_map: dict[str, Annotated[list[Level], Field(min_length=3, max_length=3)]] | None = Field(
        default=None, description="[R, G, B] by class index, for more than two classes."
    )

    @model_validator(mode="after")
    def _a_colour_for_every_class(self) -> SegmentData:
        if self.color_map is not None and set(self.color_map) != {str(i) for i in range(self.num_classes)}:
            raise ValueError(
                f"color_map must name the classes 0 to {self.num_classes - 1}: it names {[*self.color_map]}"
            )
        return self


class ClassifyData(PairData):
    """Tables of units and golden images, and how their images are put together."""

    batch_size: BatchSize = Field(default=8, description="Pairs per batch where the action sets none.")
    image_width: int = Field(default=224, ge=1, description="Width of one image in pixels.")
    image_height: int = Field(default=224, ge=1, description="Height of one image in pixels.")
    num_golden: int = Field(default=1, ge=1, description="Golden images per unit; more than 1 are drawn from a folder.")


class Dataset(Section):
    """Images and labels of both tasks."""

    segment: SegmentData = Field(default_factory=SegmentData, description="Pictures of task segment.")
    classify: ClassifyData = Field(default_factory=ClassifyData, description="Pairs of task classify.")


class Spec(LargeBackboneSpec):
    """Spec of visual_changenet."""

    network: ClassVar[str] = "visual_changenet"

    task: Annotated[Literal["segment", "classify"], BeforeValidator(lambda value: value or "segment")] = Field(
        default="segment", description="What the model does."
    )
    model: Model = Field(default_factory=Model, description="Facts about the trained network.")
    dataset: Dataset = Field(default_factory=Dataset, description="Images and labels.")
    gen_trt_engine: GenTrtEngine = Field(default_factory=GenTrtEngine, description="ONNX file in, engine file out.")
    evaluate: Evaluate = Field(default_factory=Evaluate, description="Measure a model on annotated data.")
