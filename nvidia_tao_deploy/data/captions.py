"""Images with a caption file each, and lists of texts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from nvidia_tao_deploy.data.image import list_images
from nvidia_tao_deploy.data.sample import Dataset, Listed, Sample
from nvidia_tao_deploy.data.text import counted, read_lines, read_text, some
from nvidia_tao_deploy.errors import DataError


class Captioned(Listed):
    """Images with captions, ``meta["text"]``; those without an image or a caption are counted in ``issues``.

    Args:
        image_dir: folder of images, not searched further down.
        caption_dir: folder of caption files; None: the image's own.
        suffix: a caption file is the image's stem with this.
        image_list_file: file names in ``image_dir``, one per line; None: all images there, sorted by name.
        recursive: take the images of sub-folders too, each with its caption beside it.

    Raises:
        DataError: a folder or the list is missing, or not one image has a caption.
    """

    def __init__(
        self,
        image_dir: Path | str,
        caption_dir: Path | str | None = None,
        suffix: str = ".txt",
        image_list_file: Path | str | None = None,
        *,
        recursive: bool = False,
    ) -> None:
        root = Path(os.path.abspath(image_dir))
        if image_list_file:
            images = [root / name.strip() for name in read_lines(Path(image_list_file)) if name.strip()]
        else:
            images = list_images(root, recursive)
        samples: list[Sample] = []
        missing: dict[str, list[str]] = {"image file": [], "caption file": [], "text in their caption file": []}
        for image in images:
            caption = (Path(os.path.abspath(caption_dir)) if caption_dir else image.parent) / f"{image.stem}{suffix}"
            text = read_text(caption).strip() if caption.is_file() else ""
            if image.is_file() and text:
                samples.append(Sample(image.relative_to(root).as_posix(), (image, caption), meta={"text": text}))
                continue
            what = "image file" if not image.is_file() else "text in their caption file"
            missing[what if what == "image file" or caption.is_file() else "caption file"].append(image.name)
        issues = [
            f"{image_dir}: {counted(len(names), f'images left out, they have no {what}')}: {some(names)}"
            for what, names in missing.items()
            if names
        ]
        super().__init__(samples, root, issues)
        if not samples:
            raise DataError(
                "not one image has a caption",
                where=str(image_dir),
                remedy="; ".join(self.issues) or "The list of images is empty.",
            )


def text_samples(texts: Iterable[str], source: Path, **meta: Any) -> Iterator[Sample]:
    """Texts as samples without a picture."""
    for number, text in enumerate(texts, 1):
        yield Sample(f"{source}:{number}", (source,), meta={"text": text, "visual": False, **meta})


def text_file(path: Path | str) -> list[Sample]:
    """A file's lines as samples, stripped, without blank ones; DataError where it cannot be read, or holds no text."""
    texts = [line.strip() for line in read_lines(Path(path)) if line.strip()]
    if not texts:
        raise DataError("the file holds no text", where=str(path), remedy="Write one text per line.")
    return list(text_samples(texts, Path(path)))


class Joined(Listed):
    """Several datasets, one after the other."""

    called = "samples"

    def __init__(self, parts: Sequence[Dataset]) -> None:
        samples = (part[i] for part in parts for i in range(len(part)))
        issues = (issue for part in parts for issue in getattr(part, "issues", ()))
        super().__init__(samples, parts[0].root if parts else None, issues)
