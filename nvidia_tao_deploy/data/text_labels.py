"""Images with transcripts: a folder with one text file per image, or a list of files and their texts."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from nvidia_tao_deploy.data.folder import common_root, relative_id
from nvidia_tao_deploy.data.image import SUFFIXES, list_images
from nvidia_tao_deploy.data.sample import Listed, Sample
from nvidia_tao_deploy.data.text import counted, read_lines, read_text, some
from nvidia_tao_deploy.errors import DataError


def read_characters(path: Path | str) -> list[str]:
    """The classes of a recogniser, one per line, each stripped; a blank line is an empty class and takes an id.

    Raises:
        DataError: the file is missing, not UTF-8, or names no class.
    """
    # Not splitlines(): it also splits at characters that may themselves be classes.
    lines = read_text(Path(path)).split("\n")
    if lines[-1] == "":
        lines.pop()
    names = [line.strip() for line in lines]
    if not any(names):
        raise DataError("the list of characters is empty", where=str(path), remedy="Write one character per line.")
    return names


def outside_dictionary(texts: Iterable[str], characters: Sequence[str]) -> Counter[str]:
    """Characters that no class can spell -> the number of texts that hold them."""
    known = set("".join(characters))
    return Counter(char for text in texts for char in set(text) - known)


class TextLabels(Listed):
    """Images whose targets are transcripts (str).

    Build one with :meth:`from_folders` or :meth:`from_list`. ``issues`` names what was left out, and the characters
    of the transcripts that the recogniser has no class for: such images stay in, as no model can get them right.

    Attributes:
        unspellable: samples whose transcript holds such a character.
    """

    def __init__(
        self, samples: Sequence[Sample], characters: Sequence[str], issues: Sequence[str], where: str, root: Path
    ) -> None:
        if not samples:
            raise DataError(
                f"not one image with a label: {some(issues, 3)}" if issues else "there is no label",
                where=where,
                remedy="Check the paths of images and labels.",
            )
        super().__init__(samples, root, issues)
        strangers = outside_dictionary((sample.target for sample in samples), characters)
        known = set("".join(characters))
        wrong = [sample for sample in samples if not set(sample.target) <= known]
        self.unspellable = len(wrong)
        if empty := [sample.id for sample in samples if not sample.target]:
            self.issues.append(f"{counted(len(empty), 'labels are empty')} (kept: no text is right): {some(empty)}")
        if wrong:
            named = some([f"'{char}' ({count})" for char, count in sorted(strangers.items())], 10)
            self.issues.append(
                f"{counted(len(wrong), 'labels hold characters outside the dictionary')}: {named}; "
                f"in {some(s.id for s in wrong)}"
            )

    @classmethod
    def from_folders(
        cls, pairs: Sequence[tuple[str, str]], characters: Sequence[str], *, strict: bool = False
    ) -> TextLabels:
        """Images directly in a folder, each with ``<stem>.txt`` in its label folder: first line, stripped.

        Args:
            pairs: (image folder, label folder).
            characters: classes of the recogniser.
            strict: an image without label is an error.

        Raises:
            DataError: a folder is missing, no image has a label, or (``strict``) one has none.
        """
        root = common_root([images for images, _ in pairs])
        samples, unlabelled = [], []
        for images, labels in pairs:
            if not Path(labels).is_dir():
                raise DataError("no such label folder", where=str(labels), remedy="Check the path.")
            for path in list_images(images, recursive=False):
                label = Path(labels) / f"{path.stem}.txt"
                if label.is_file():
                    first = next(iter(read_lines(label)), "")
                    samples.append(Sample(relative_id(path, root), (path,), first.strip()))
                else:
                    unlabelled.append(path.name)
        told = f"{counted(len(unlabelled), 'images without a label are left out')}: {some(unlabelled)}"
        issues = [told] if unlabelled else []
        where = some(labels for _, labels in pairs)
        if strict and issues:
            raise DataError(issues[0], where=where, remedy="Write the labels, or leave `strict` off.")
        return cls(samples, characters, issues, where, root)

    @classmethod
    def from_list(
        cls, folder: Path | str, gt_file: Path | str, characters: Sequence[str], *, strict: bool = False
    ) -> TextLabels:
        """Lines of ``file transcript``; the transcript is everything after the first white space, and may be empty.

        Args:
            folder: what the files' names are relative to.
            gt_file: the list; its order is the dataset's.
            characters: classes of the recogniser.
            strict: a line that cannot be used is an error.

        Raises:
            DataError: folder or list is missing, no line can be used, or (``strict``) one cannot.
        """
        root = Path(os.path.abspath(folder))
        if not root.is_dir():
            raise DataError("no such image folder", where=str(folder), remedy="Check the path.")
        samples: list[Sample] = []
        blank: list[int] = []
        left_out: list[str] = []
        seen: Counter[str] = Counter()
        for number, line in enumerate(read_text(Path(gt_file)).rstrip().split("\n"), 1):
            name, text = (*line.split(None, 1), "", "")[:2]
            if not name:
                blank.append(number)
            elif Path(name).suffix.lower() not in SUFFIXES:
                left_out.append(f"{name} (line {number}, no image suffix)")
            elif not (root / name).is_file():
                left_out.append(f"{name} (line {number}, no such file)")
            else:
                seen[name] += 1
                sample_id = name if seen[name] == 1 else f"{name}#{number}"
                samples.append(Sample(sample_id, (root / name,), text.strip()))
        issues = [f"{counted(len(left_out), 'lines')} of {gt_file} are left out: {some(left_out)}"] if left_out else []
        if strict and issues:
            raise DataError(issues[0], where=str(gt_file), remedy="Mend the list, or leave `strict` off.")
        if blank:
            issues.append(f"{counted(len(blank), 'blank lines')} of {gt_file} are passed over: {some(blank)}")
        return cls(samples, characters, issues, str(gt_file), root)
