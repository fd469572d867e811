"""Datasets of visual grounding: one sample per image and expression."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from nvidia_tao_deploy.data.coco import CocoDetection
from nvidia_tao_deploy.data.folder import common_root
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.data.text import read_lines, some
from nvidia_tao_deploy.errors import DataError
from nvidia_tao_deploy.pipeline.progress import say

UNNAMED = "object"


class Expressions:
    """Samples with an expression in ``meta["prompt"]``; targets are tuples of COCO segmentations, () for no target.

    Attributes:
        issues: what was left out, counted and named.

    Raises:
        DataError: there is no sample.
    """

    def __init__(self, samples: Iterable[Sample], root: Path, where: str, issues: Sequence[str] = ()) -> None:
        self._samples = list(samples)
        self.root: Path | None = root
        self.issues = list(issues)
        if not self._samples:
            raise DataError(
                f"no expression with an image: {'; '.join(self.issues) or 'the file is empty'}", where=where
            )

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int, /) -> Sample:
        return self._samples[index]

    @property
    def prompts(self) -> list[str]:
        """The expressions."""
        return [sample.meta["prompt"] for sample in self._samples]


def is_lines(path: str) -> bool:
    """The file is of JSON lines."""
    return Path(path).suffix.lower() == ".jsonl"


def dataset(spec: Any, action: str, source: str) -> Expressions:
    """evaluate: ``json_file`` and ``image_dir`` of the section ``source``; inference: ``captions`` and ``image_dir``.

    Raises:
        SpecError: one is not named.
        DataError: files are missing or malformed.
    """
    if action == "inference":
        found = to_find(spec.require(f"{source}.captions")[0], spec.require(f"{source}.image_dir"), strict=spec.strict)
        for issue in found.issues:
            say(f"note: {issue}")
        return found
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
    issues = list(data.issues)

    def samples() -> Iterator[Sample]:
        for index in range(len(data)):
            image = data[index]
            groups: dict[Any, list[Any]] = {}
            for annotation in image.target.annotations:
                if not annotation["iscrowd"]:
                    sentence = annotation.get("sent_id")
                    groups.setdefault(_text(annotation) if sentence in (None, -1) else sentence, []).append(annotation)
            for key, rows in groups.items():
                yield from _sample(f"{image.id}:{key}", image.path, _text(rows[0]), rows, issues)

    return _finished(samples(), Path(os.path.abspath(image_dir)), str(json_file), issues)


def from_lines(jsonl_file: Path | str, image_dir: Path | str, *, strict: bool = False) -> Expressions:
    """JSON lines {file_name, sentence {raw}, annotations [{segmentation, empty}]}: one sample per line.

    Raises:
        DataError: the file cannot be read or holds no sample; with ``strict``, an image is missing.
    """
    folder, where = Path(os.path.abspath(image_dir)), str(jsonl_file)
    issues: list[str] = []

    def samples() -> Iterator[Sample]:
        for number, row in _rows(Path(jsonl_file), ("file_name", "sentence"), issues):
            path = _image(folder, str(row["file_name"]))
            if path is None:
                _missing(f"{jsonl_file}:{number}: no image {row['file_name']} below {folder}", issues, strict)
                continue
            sentence = row["sentence"]
            text = str(sentence.get("raw", UNNAMED) if isinstance(sentence, dict) else sentence)
            yield from _sample(f"line {number}", path, text, row.get("annotations") or [], issues)

    return _finished(samples(), folder, where, issues)


def to_find(jsonl_file: Path | str, image_dirs: Sequence[str], *, strict: bool = False) -> Expressions:
    """JSON lines {image_path, expression}, image paths relative to the first folder, without targets.

    Raises:
        DataError: the file cannot be read or holds no sample; with ``strict``, an image is missing.
    """
    folder, issues = common_root(image_dirs[:1]), list[str]()

    def samples() -> Iterator[Sample]:
        for number, row in _rows(Path(jsonl_file), ("image_path", "expression"), issues):
            path = _image(folder, str(row["image_path"]))
            if path is None:
                _missing(f"{jsonl_file}:{number}: no image {row['image_path']} below {folder}", issues, strict)
                continue
            yield Sample(f"line {number}", (path,), None, {"prompt": str(row["expression"])})

    return _finished(samples(), folder, str(jsonl_file), issues)


def _finished(samples: Iterable[Sample], root: Path, where: str, issues: list[str]) -> Expressions:
    listed = list(samples)  # reading fills the issues
    return Expressions(listed, root, where, issues)


def _text(annotation: Any) -> str:
    return str(annotation.get("referring_expression") or annotation.get("caption") or UNNAMED)


def _sample(name: str, path: Path, text: str, rows: Sequence[Any], issues: list[str]) -> Iterator[Sample]:
    there = [row for row in rows if not row.get("empty")]
    if any(not row.get("segmentation") for row in there):
        issues.append(f"{name}: skipped, an annotation of {text!r} has no segmentation")
        return
    yield Sample(name, (path,), tuple(row["segmentation"] for row in there), {"prompt": text})


def _rows(path: Path, keys: Sequence[str], issues: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    broken = []
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError):
            row = None
        if isinstance(row, dict) and all(key in row for key in keys):
            yield number, row
        else:
            broken.append(number)
    if broken:
        issues.append(f"{len(broken)} lines skipped, no JSON object with {' and '.join(keys)}: {some(broken)}")


def _missing(what: str, issues: list[str], strict: bool) -> None:
    if strict:
        raise DataError(what)
    issues.append(f"{what} (skipped)")


def _image(folder: Path, name: str) -> Path | None:
    """Below the folder as named, or by its last part; else where an absolute name says."""
    for path in (folder / name.lstrip("/"), folder / Path(name).name, Path(name)):
        if path.is_file():
            return path
    return None
