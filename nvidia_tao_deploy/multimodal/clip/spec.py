"""What clip reads from its spec."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from nvidia_tao_deploy.families.image_text_spec import ImageTextSpec
from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.sections import BatchSize, Section


def _template(text: str) -> str:
    if text.count("{}") != 1:
        raise ValueError(f"'{text}' must hold {{}} once, for the class name")
    return text


class Captions(Section):
    """Images, and a caption file for each."""

    image_dir: str | None = sections.mandatory("Folder of images.")
    image_list_file: str | None = Field(default=None, description="File names in image_dir, one per line; null: all.")
    caption_dir: str | None = Field(default=None, description="Folder of caption files; null: image_dir.")
    caption_file_suffix: str = Field(default=".txt", description="A caption file is the image's stem with this.")


class Val(Section):
    """Data of evaluate."""

    datasets: list[Captions] = Field(default=[], description="Images with captions; several are put together.")


class Dataset(Section):
    """Images and captions."""

    val: Val = Field(default_factory=Val, description="Data of evaluate.")


class ZeroShot(Section):
    """Classify images by comparing them with a text per class."""

    images_dir: str | None = Field(default=None, description="Folder with a sub-folder of images per class.")
    class_names: dict[str, str] = Field(
        default={}, description="Words for a folder's class; others are their folder's name with blanks for _."
    )
    templates: list[Annotated[str, AfterValidator(_template)]] = Field(
        default=["a photo of a {}"], min_length=1, description="Texts with {} for the class; their mean is taken."
    )


class Evaluate(sections.Evaluate):
    """Measure retrieval, and classification by texts."""

    batch_size: BatchSize = Field(default=16, description="Images and texts per batch.")
    zero_shot: ZeroShot = Field(default_factory=ZeroShot, description="Classification by texts.")


class Inference(sections.Inference):
    """Write embeddings of images and texts."""

    batch_size: BatchSize = Field(default=16, description="Images or texts per batch.")
    datasets: list[Captions] = Field(default=[], description="Folders of images, searched recursively.")
    text_file: str | None = Field(default=None, description="Texts, one per line.")
    top_k: int = Field(default=5, ge=0, description="Best matches written of each image and text; 0: none.")


class Spec(ImageTextSpec):
    """Spec of clip."""

    network: ClassVar[str] = "clip"

    dataset: Dataset = Field(default_factory=Dataset, description="Images and captions.")
    evaluate: Evaluate = Field(default_factory=Evaluate, description="Measure a model on annotated data.")
    inference: Inference = Field(default_factory=Inference, description="Run a model on images and texts.")
