"""Semantic segmentation with a class list in the spec: unet, segformer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from nvidia_tao_deploy.errors import SpecError
from nvidia_tao_deploy.predictions.drawing import Rgb

UNMAPPED = {"ignore": "they are ignored", "first_class": "they count as class 0"}


@dataclass(frozen=True)
class ListedClass:
    """One entry of a class list.

    Attributes:
        name: of the class.
        label_id: its value in masks.
        mapping_class: name of the class it counts as; empty: itself.
        rgb: its colour, None where the list has none.
    """

    name: str
    label_id: int
    mapping_class: str = ""
    rgb: Rgb | None = None


@dataclass(frozen=True)
class ClassMap:
    """Classes as the model numbers them (train ids).

    Attributes:
        names: by train id; of merged classes all, joined by "/".
        of_label: label id -> train id.
        of_entry: train id of each entry of the list.
        colors: by train id, of the class that the others of this id are mapped to; None where the list has none.
    """

    names: list[str]
    of_label: dict[int, int]
    of_entry: list[int]
    colors: list[Rgb | None] = field(default_factory=list)


def class_map(entries: Sequence[ListedClass], where: str) -> ClassMap:
    """Train ids are the ranks of the label ids that entries are mapped to; ``where`` is the list's place in the spec.

    Raises:
        SpecError: no entry, a mapping to a class that is not listed, a name or label id with two meanings.
    """
    if not entries:
        raise SpecError("the class list is empty", where=where, remedy="List the classes of the training.")
    label_of = {entry.name: entry.label_id for entry in entries}
    for entry in entries:
        target = entry.mapping_class or entry.name
        if target not in label_of:
            near = get_close_matches(target, label_of, 1)
            raise SpecError(
                f"class '{entry.name}' is mapped to '{target}', which is not in the list",
                where=where,
                remedy=f"Did you mean '{near[0]}'?" if near else f"Classes are {', '.join(label_of)}.",
            )
        if label_of[entry.name] != entry.label_id:
            raise SpecError(
                f"class '{entry.name}' has the label ids {entry.label_id} and {label_of[entry.name]}", where=where
            )
    mapped = [label_of[entry.mapping_class or entry.name] for entry in entries]
    ranks = {label: rank for rank, label in enumerate(sorted(set(mapped)))}
    of_entry = [ranks[label] for label in mapped]
    of_label: dict[int, int] = {}
    for entry, train_id in zip(entries, of_entry, strict=True):
        if of_label.setdefault(entry.label_id, train_id) != train_id:
            raise SpecError(f"label id {entry.label_id} stands for two classes", where=where)
    names: list[dict[str, None]] = [{} for _ in ranks]
    colors: list[Rgb | None] = [None] * len(ranks)
    for entry, train_id in zip(entries, of_entry, strict=True):
        names[train_id][entry.name] = None  # in the list's order, each once
        if colors[train_id] is None or (entry.mapping_class or entry.name) == entry.name:
            colors[train_id] = entry.rgb
    return ClassMap(["/".join(merged) for merged in names], of_label, of_entry, colors)
