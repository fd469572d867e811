"""What visual_changenet reads from its spec."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from nvidia_tao_deploy.families.augmentation_spec import HalfAugmentation
from nvidia_tao_deploy.families.detr_spec import LargeBackboneSpec
from nvidia_tao_deploy.families.inspection_spec import PairData
from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.fields import field, section
from nvidia_tao_deploy.spec.sections import BatchSize, Section, lower

Level = Annotated[int, Field(ge=0, le=255)]


class Evaluate(sections.Evaluate):
    """Measure a model on annotated pairs."""

    visualize: bool = field(True, "Task segment: also write the pictures that inference writes.")


class Backbone(Section):
    """The backbone."""

    type: str = field("fan_small_12_p4_hybrid", "Its name; ViT-L needs a larger workspace.")


class Classify(Section):
    """The head of task classify."""

    difference_module: Literal["euclidean", "learnable"] = field(
        "euclidean", "What the model gives: a distance, or two logits."
    )
    eval_margin: float = field(
        2.0, "A unit is defective where its distance (learnable: its probability) is over this.", ge=0
    )


class Model(Section):
    """Facts about the trained network."""

    backbone: Backbone = section(Backbone)
    classify: Classify = section(Classify)


class SegmentData(Section):
    """Pictures before and after, below one folder."""

    root_dir: str = field("", "Folder of everything below.")
    data_name: str = field("LEVIR", "LandSCD selects that data set's colours.")
    label_transform: Annotated[Literal["norm", "none"], BeforeValidator(lambda value: lower(value or "none"))] = field(
        "norm", "norm: label pixels of 255 are change, all others are not; none: class indices."
    )
    num_classes: int = field(2, "Classes of the model.", ge=2)
    img_size: int = field(224, "Side of the model's input; must be the model's where given.", ge=1)
    batch_size: BatchSize = field(8, "Pairs per batch where the action sets none.")
    image_folder_name: str = field("A", "Folder of the pictures before.")
    change_image_folder_name: str = field("B", "Folder of the pictures after.")
    list_folder_name: str = field("list", "Folder of the list files.")
    annotation_folder_name: str = field("label", "Folder of the label files.")
    train_split: str = field("train", "List for INT8 calibration, <train_split>.txt.")
    test_split: str = field("test", "List for evaluate.")
    predict_split: str = field("test", "List for inference.")
    label_suffix: str = field(".png", "What label files have for the suffix.", pattern="^[^/]+$")
    augmentation: HalfAugmentation = section(HalfAugmentation)
    color_map: dict[str, Annotated[list[Level], Field(min_length=3, max_length=3)]] | None = field(
        None, "[R, G, B] by class index, for more than two classes."
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

    batch_size: BatchSize = field(8, "Pairs per batch where the action sets none.")
    image_width: int = field(224, "Width of one image in pixels.", ge=1)
    image_height: int = field(224, "Height of one image in pixels.", ge=1)
    num_golden: int = field(1, "Golden images per unit; more than 1 are drawn from a folder.", ge=1)


class Dataset(Section):
    """Images and labels of both tasks."""

    segment: SegmentData = section(SegmentData, "Pictures of task segment.")
    classify: ClassifyData = section(ClassifyData, "Pairs of task classify.")


class Spec(LargeBackboneSpec, network="visual_changenet", changes={"gen_trt_engine.tensorrt.max_batch_size": 8}):
    """Spec of visual_changenet."""

    task: Annotated[Literal["segment", "classify"], BeforeValidator(lambda value: value or "segment")] = field(
        "segment", "What the model does."
    )
    model: Model = section(Model)
    dataset: Dataset = section(Dataset, "Images and labels.")
    evaluate: Evaluate = section(Evaluate, "Measure a model on annotated data.")
