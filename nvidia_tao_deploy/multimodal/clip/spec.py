"""What clip reads from its spec."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from nvidia_tao_deploy.families.image_text_spec import ImageTextSpec
from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.fields import field, section
from nvidia_tao_deploy.spec.sections import BatchSize, Section


def _template(text: str) -> str:
    if text.count("{}") != 1:
        raise ValueError(f"'{text}' must hold {{}} once, for the class name")
    return text


class Captions(Section):
    """Images, and a caption file for each."""

    image_dir: str | None = sections.mandatory("Folder of images.")
    image_list_file: str | None = field(None, "File names in image_dir, one per line; null: all.")
    caption_dir: str | None = field(None, "Folder of caption files; null: image_dir.")
    caption_file_suffix: str = field(".txt", "A caption file is the image's stem with this.")


class Val(Section):
    """Data of evaluate."""

    datasets: list[Captions] = field([], "Images with captions; several are put together.")


class Dataset(Section):
    """Images and captions."""

    val: Val = section(Val)


class ZeroShot(Section):
    """Classify images by comparing them with a text per class."""

    images_dir: str | None = field(None, "Folder with a sub-folder of images per class.")
    class_names: dict[str, str] = field({}, "Words by folder; other classes are their folder's name with blanks for _.")
    templates: list[Annotated[str, AfterValidator(_template)]] = field(
        ["a photo of a {}"], "Texts with {} for the class; their mean is taken.", min_length=1
    )


class Evaluate(sections.Evaluate):
    """Measure retrieval, and classification by texts."""

    batch_size: BatchSize = field(16, "Images and texts per batch.")
    zero_shot: ZeroShot = section(ZeroShot, "Classification by texts.")


class Inference(sections.Inference):
    """Write embeddings of images and texts."""

    batch_size: BatchSize = field(16, "Images or texts per batch.")
    datasets: list[Captions] = field([], "Folders of images, searched recursively.")
    text_file: str | None = field(None, "Texts, one per line.")
    top_k: int = field(5, "Best matches written of each image and text; 0: none.", ge=0)


class Spec(ImageTextSpec, network="clip"):
    """Spec of clip."""

    dataset: Dataset = section(Dataset)
    evaluate: Evaluate = section(Evaluate, "Measure a model on annotated data.")
    inference: Inference = section(Inference, "Run a model on images and texts.")
