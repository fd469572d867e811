"""Datasets of visual grounding: one sample per image and expression."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nvidia_tao_deploy.data.coco import CocoDetection
from nvidia_tao_deploy.data.folder import common_root
from nvidia_tao_deploy.data.sample import Listed, Sample
from nvidia_tao_deploy.data.text import counted, read_lines, some
from nvidia_tao_deploy.errors import DataError

UNNAMED = "object"


class Expressions(Listed):
    """Samples with an expression in ``meta["prompt"]``; targets are tuples of COCO segmentations, () for no target.

    Raises:
        DataError: there is no sample.
    """

    def __init__(self, samples: Sequence[Sample], root: Path, where: str, issues: list[str]) -> None:
        super().__init__(samples, root, issues)
        if not samples:
            raise DataError(f"no expression with an image: {'; '.join(issues) or 'the file is empty'}", where=where)

    @property
    def prompts(self) -> list[str]:
        """The expressions."""
        return [sample.meta["prompt"] for sample in self._samples]


def is_lines(path: str) -> bool:
    """The file is of JSON lines."""
    return Path(path).suffix.lower() == ".jsonl"


def dataset(spec: Any, action: str, source: str) -> Expressions:
    """evaluate: ``json_file`` and ``image_dir`` of the section ``source``; inference: its ``captions`` too."""
    if action == "inference":
        return to_find(spec.require(f"{source}.captions")[0], spec.require(f"{source}.image_dir"), strict=spec.strict)
    json_file = spec.require(f"{source}.json_file")
    read = from_lines if is_lines(json_file) else from_coco
    return read(json_file, spec.require(f"{source}.image_dir"), strict=spec.strict)


def from_coco(json_file: Path | str, image_dir: Path | str, *, strict: bool = False) -> Expressions:
    """A COCO json whose annotations have ``referring_expression`` (or ``caption``) and ``sent_id``.

    The annotations of an image with one ``sent_id`` (without it: with one expression) are one sample; those marked
    ``empty`` say that the expression has no target. Crowds are left out.

    Raises:
        DataError: the file is malformed, or holds no sample.
    """
    data = CocoDetection(json_file, image_dir, strict=strict)
    read, crowds = _Read(list(data.issues)), []
    for index in range(len(data)):
        image = data[index]
        groups: dict[Any, list[Any]] = {}
        for annotation in image.target.annotations:
            if annotation["iscrowd"]:
                crowds.append(annotation["id"])
                continue
            sentence = annotation.get("sent_id")
            groups.setdefault(_text(annotation) if sentence in (None, -1) else sentence, []).append(annotation)
        for key, rows in groups.items():
            read.take(f"{image.id}:{key}", image.path, _text(rows[0]), rows)
    if crowds:
        read.issues.append(f"{len(crowds)} crowd annotations left out: {some(crowds)}")
    return read.finished(Path(os.path.abspath(image_dir)), json_file)


def from_lines(jsonl_file: Path | str, image_dir: Path | str, *, strict: bool = False) -> Expressions:
    """JSON lines {file_name, sentence {raw}, annotations [{segmentation, empty}]}: one sample per line.

    Raises:
        DataError: the file cannot be read or holds no sample; with ``strict``, an image is missing.
    """
    folder, read = Path(os.path.abspath(image_dir)), _Read([])
    keys = ("file_name", "sentence", "annotations")
    for number, path, row in _lines(Path(jsonl_file), folder, keys, read.issues, strict):
        sentence = row["sentence"]
        text = str(sentence.get("raw", UNNAMED) if isinstance(sentence, dict) else sentence)
        read.take(f"line {number}", path, text, row["annotations"])
    return read.finished(folder, jsonl_file)


def to_find(jsonl_file: Path | str, image_dirs: Sequence[str], *, strict: bool = False) -> Expressions:
    """JSON lines {image_path, expression}, image paths relative to the first folder, without targets.

    Raises:
        DataError: the file cannot be read or holds no sample; with ``strict``, an image is missing.
    """
    folder, issues = common_root(image_dirs[:1]), list[str]()
    samples = [
        Sample(f"line {number}", (path,), None, {"prompt": str(row["expression"])})
        for number, path, row in _lines(Path(jsonl_file), folder, ("image_path", "expression"), issues, strict)
    ]
    return Expressions(samples, folder, str(jsonl_file), issues)


class _Read:
    """Collects annotated samples, and what is skipped."""

    def __init__(self, issues: list[str]) -> None:
        self.issues, self._samples, self._unusable = issues, list[Sample](), list[str]()

    def take(self, name: str, path: Path, text: str, rows: Sequence[Any]) -> None:
        """One expression and the annotations it describes."""
        there = [row for row in rows if not row.get("empty")]
        if all(row.get("segmentation") for row in there):
            self._samples.append(Sample(name, (path,), tuple(r["segmentation"] for r in there), {"prompt": text}))
        else:
            self._unusable.append(f"{name} ({text})")

    def finished(self, root: Path, where: Path | str) -> Expressions:
        """All of them."""
        if self._unusable:
            what = f"{counted(len(self._unusable), 'expressions skipped')}, an annotation has no segmentation"
            self.issues.append(f"{what}: {some(self._unusable)}")
        return Expressions(self._samples, root, str(where), self.issues)


def _text(annotation: Any) -> str:
    return str(annotation.get("referring_expression") or annotation.get("caption") or UNNAMED)


def _lines(
    file: Path, folder: Path, keys: tuple[str, ...], issues: list[str], strict: bool
) -> Iterator[tuple[int, Path, dict[str, Any]]]:
    """(number, image, object) of each line; the first of ``keys``, which every line needs, names the image."""
    broken, gone = [], []
    for number, line in enumerate(read_lines(file), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError):
            row = None
        if not (isinstance(row, dict) and all(key in row for key in keys) and _objects(row.get("annotations", []))):
            broken.append(number)
        elif (path := _image(folder, str(row[keys[0]]))) is None:
            gone.append(f"{row[keys[0]]} (line {number})")
        else:
            yield number, path, row
    if broken:
        issues.append(
            f"{counted(len(broken), 'lines skipped, they are no JSON object')} with {', '.join(keys)}: {some(broken)}"
        )
    if gone:
        what = f"{counted(len(gone), 'lines name images that are not below')} {folder}: {some(gone)}"
        if strict:
            raise DataError(what, where=str(file))
        issues.append(f"{what} (skipped)")


def _objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, dict) for entry in value)


def _image(folder: Path, name: str) -> Path | None:
    """Below the folder as named, or by its last part; else where an absolute name says."""
    for path in (folder / name.lstrip("/"), folder / Path(name).name, Path(name)):
        if path.is_file():
            return path
    return None
