"""Sample images for a report: two predictions of one image side by side, what differs marked.

Boxes (also those around text and around cuboids), label maps, depth maps, answers (classes, texts, scores) and
embeddings, by the prediction's type.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.metrics.confidence import found_boxes
from nvidia_tao_deploy.metrics.retrieval import normalize_rows
from nvidia_tao_deploy.predictions.depth import DepthMap, colorize
from nvidia_tao_deploy.predictions.embeddings import Embeddings
from nvidia_tao_deploy.predictions.nms import iou_matrix
from nvidia_tao_deploy.predictions.segmentation import to_source
from nvidia_tao_deploy.predictions.segmentation_writer import seeded_color
from nvidia_tao_deploy.predictions.text import Text
from nvidia_tao_deploy.predictions.types import Classification, Detections, LabelMap, PanopticMap
from nvidia_tao_deploy.report import html

if TYPE_CHECKING:
    from PIL.Image import Image

LONGEST = 480  # pixels of a picture's longer side
SAME, DIFFERENT = (40, 170, 90), (225, 40, 40)
OVERLAP = 0.5
NEAR = 0.05  # depths that are no further apart count as the same, relative to the first
MARKS = {
    "boxes": "Red: not in the other picture. Each at its own threshold: fp32's, and the one that restores its recall.",
    "maps": "Red in the right picture: pixels of another class.",
    "depth": "Red in the right picture: more than 5 % from fp32's value.",
    "answers": "In red: answers that differ.",
    "neighbours": "What is nearest to each image among the samples looked at here; in red: where that differs.",
}
ANSWERED = ("answers", "neighbours")  # of these, a difference of 1 or more is another answer


@dataclass(frozen=True)
class Kept:
    """A sample with what two models make of it."""

    sample: Sample
    one: Any
    other: Any


@dataclass(frozen=True)
class View:
    """Two predictions of one sample, ready to be drawn.

    Attributes:
        difference: how far they are apart; larger for more.
        kind: a key of :data:`MARKS`.
        texts: what each of them says.
        draw: the source's picture -> the two pictures.
    """

    sample: Sample
    difference: float
    kind: str
    texts: tuple[str, str]
    draw: Callable[[Image], tuple[Image, Image]]


def side_by_side(kept: Sequence[Kept], names: tuple[str, str], at: tuple[float, float], count: int) -> str:
    """HTML of the ``count`` samples that differ most between two models, boxes ``at`` their thresholds.

    Returns:
        "" where the predictions are of a kind that is not drawn, or no picture can be read.
    """
    found = views(kept, at)
    parts = []
    for view in sorted(found, key=lambda one: -one.difference)[:count]:
        picture = thumbnail(view.sample.path)
        if picture is None:
            continue
        cells = []
        for name, text, drawn in zip(names, view.texts, view.draw(picture), strict=True):
            buffer = BytesIO()
            drawn.save(buffer, "JPEG", quality=80)
            uri = f"data:image/jpeg;base64,{b64encode(buffer.getvalue()).decode()}"
            cells.append((uri, f"{name}: {text}"))
        parts.append(
            html.pair(cells, view.sample.path.name, "bad" if view.kind in ANSWERED and view.difference >= 1 else "dim")
        )
    return (html.paragraphs([MARKS[found[0].kind]], "dim") if parts else "") + "".join(parts)


def views(kept: Sequence[Kept], at: tuple[float, float]) -> list[View]:
    """One view per sample that has a picture; [] for kinds that are not drawn."""
    if kept and _vectors(kept[0].one) is not None:
        return _neighbours(kept)
    found = (_view(each, at) for each in kept)
    return [view for view in found if view is not None]


def thumbnail(path: Path) -> Image | None:
    """The picture, its longer side 480 pixels; None for a file that is none."""
    from PIL import Image

    try:
        with Image.open(path) as opened:
            image: Image.Image = opened.convert("RGB")
    except OSError:
        return None
    scale = LONGEST / max(image.size)
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))


def unmatched(found: Detections, others: Detections) -> NDArray[np.bool_]:
    """(N,) bool: boxes with no other box of their class at IoU 0.5 or more."""
    near = iou_matrix(found.boxes_xyxy, others.boxes_xyxy) >= OVERLAP
    near &= found.class_ids[:, None] == others.class_ids[None]
    return np.asarray(~near.any(axis=1))


def _view(each: Kept, at: tuple[float, float]) -> View | None:
    one, other = found_boxes(each.one), found_boxes(each.other)
    if one is not None and other is not None:
        return _boxes(each.sample, one[one.scores >= at[0]], other[other.scores >= at[1]])
    values, others = _map(each.one), _map(each.other)
    if values is not None and others is not None:
        return _maps(each.sample, values, others)
    answer, other_answer = _answer(each.one, at[0]), _answer(each.other, at[1])
    if answer is None or other_answer is None:
        return None
    (text, score), (other_text, other_score) = answer, other_answer
    target = each.sample.target
    if isinstance(target, (bool, np.bool_)):
        target = _verdict(target)
    truth = f", truth: {target}" if isinstance(target, (str, int, np.integer)) else ""
    texts = f"{text} ({score:.3f}){truth}", f"{other_text} ({other_score:.3f}){truth}"
    return View(each.sample, (text != other_text) + abs(score - other_score), "answers", texts, lambda p: (p, p))


def _boxes(sample: Sample, one: Detections, other: Detections) -> View:
    marks = unmatched(one, other), unmatched(other, one)
    texts = tuple(
        f"{len(found)} found, {int(marked.sum())} not in the other"
        for found, marked in zip((one, other), marks, strict=True)
    )

    def draw(picture: Image) -> tuple[Image, Image]:
        from PIL import Image, ImageDraw

        with Image.open(sample.path) as source:
            scale = np.tile(np.array(picture.size) / source.size, 2)
        drawn = picture.copy(), picture.copy()
        for canvas, found, marked in zip(drawn, (one, other), marks, strict=True):
            pen = ImageDraw.Draw(canvas)
            for index in np.argsort(marked, kind="stable"):  # red ones last, on top
                x1, y1, x2, y2 = (found.boxes_xyxy[index] * scale).tolist()
                corners = min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)
                pen.rectangle(corners, outline=DIFFERENT if marked[index] else SAME, width=3 if marked[index] else 2)
        return drawn

    return View(sample, float(marks[0].sum() + marks[1].sum()), "boxes", (texts[0], texts[1]), draw)


def _map(prediction: Any) -> NDArray[Any] | None:
    """(H, W) over the whole picture: classes (-1: none), or depths; None for other kinds."""
    if isinstance(prediction, LabelMap):
        return to_source(prediction.class_ids, prediction.geometry)
    if isinstance(prediction, PanopticMap):
        classes = np.concatenate([[-1], prediction.class_ids])[prediction.segment_ids]
        return to_source(classes, prediction.geometry)
    if isinstance(prediction, DepthMap):
        return prediction.on_source()
    return prediction if isinstance(prediction, np.ndarray) and prediction.ndim == 2 else None


def _maps(sample: Sample, one: NDArray[Any], other: NDArray[Any]) -> View:
    depth = one.dtype.kind == "f"
    differs = np.abs(other - one) > NEAR * np.abs(one) if depth else one != other
    share = float(differs.mean())
    shown = f"{100 * share:.2g} % of the pixels differ"
    texts = (f"{one.min():.3g} to {one.max():.3g}" if depth else f"{len(np.unique(one))} classes"), shown

    def draw(picture: Image) -> tuple[Image, Image]:
        from PIL import Image

        if depth:
            colors = np.split(colorize(np.vstack([one, other])), [len(one)])
        else:
            known, place = np.unique(np.stack([one, other]), return_inverse=True)
            palette = np.array([seeded_color(int(k)) if k > 0 else (0, 0, 0) for k in known], np.uint8)
            colors = list(palette[place.reshape(2, *one.shape)])
        colors[1] = np.where(differs[..., None], np.array(DIFFERENT, np.uint8), colors[1])
        drawn = [Image.fromarray(values).resize(picture.size, Image.Resampling.NEAREST) for values in colors]
        red = Image.fromarray(differs).resize(picture.size, Image.Resampling.NEAREST)
        left, right = (Image.blend(picture, color, 0.9 if depth else 0.5) for color in drawn)
        right.paste(DIFFERENT, mask=red)
        return left, right

    return View(sample, share, "depth" if depth else "maps", texts, draw)


def _verdict(defect: Any) -> str:
    return "defect" if defect else "no defect"


def _answer(prediction: Any, threshold: float) -> tuple[str, float] | None:
    """What a prediction says of the whole picture, and its score; a defect is what reaches the threshold."""
    if isinstance(prediction, Classification):
        return f"class {prediction.class_id}", float(prediction.scores.max())
    if isinstance(prediction, Text):
        return f"'{prediction.text}'", float(prediction.confidence)
    if isinstance(prediction, np.floating):
        return _verdict(prediction >= threshold), float(prediction)
    if isinstance(prediction, Mapping):
        parts = {task: _answer(found, threshold) for task, found in prediction.items()}
        known = {task: part for task, part in parts.items() if part is not None}
        if known:
            text = ", ".join(f"{task} {part[0]}" for task, part in known.items())
            return text, min(part[1] for part in known.values())
    return None


def _vectors(prediction: Any) -> tuple[Any, Any] | None:
    """(what is asked with, what is looked through) of an embedding; None for other kinds."""
    if isinstance(prediction, Embeddings):
        return prediction.visual, prediction.text
    return (prediction, prediction) if isinstance(prediction, np.ndarray) and prediction.ndim == 1 else None


def _neighbours(kept: Sequence[Kept]) -> list[View]:
    """What each image is nearest to: texts where there are some, else the gallery's images, else the other images."""
    across = isinstance(kept[0].one, Embeddings)
    asks = [each for each in kept if each.sample.meta.get("visual", True) and not each.sample.meta.get("gallery")]
    listed = [each for each in kept if ("text" if across else "gallery") in each.sample.meta]
    listed = [each for each in listed if across or each.sample.meta["gallery"]] or asks
    if len(listed) < 2 or (across and listed is asks):
        return []
    found = []
    for side in ("one", "other"):
        queries = [_vectors(getattr(each, side)) for each in asks]
        gallery = [_vectors(getattr(each, side)) for each in listed]
        rows = normalize_rows(np.stack([pair[0] for pair in queries if pair]))
        similar = rows @ normalize_rows(np.stack([pair[1] for pair in gallery if pair])).T
        if listed is asks:
            np.fill_diagonal(similar, -1)
        found.append((similar.argmax(axis=1), similar.max(axis=1)))
    views = []
    for row, each in enumerate(asks):
        near = [listed[int(index[row])].sample for index, _ in found]
        cosines = [float(values[row]) for _, values in found]
        texts = [
            f"'{there.meta['text']}' ({cosine:.3f})" if across else f"{_named(there)} ({cosine:.3f})"
            for there, cosine in zip(near, cosines, strict=True)
        ]
        difference = float(near[0] is not near[1]) + abs(cosines[0] - cosines[1])
        draw = _beside(near) if not across else lambda p: (p, p)
        views.append(View(each.sample, difference, "neighbours", (texts[0], texts[1]), draw))
    return views


def _named(sample: Sample) -> str:
    return sample.path.name if sample.target is None else f"{sample.path.name}, class {sample.target}"


def _beside(near: Sequence[Sample]) -> Callable[[Image], tuple[Image, Image]]:
    """Draws the picture of each of two samples below the query's."""

    def draw(picture: Image) -> tuple[Image, Image]:
        from PIL import Image

        drawn = []
        for sample in near:
            below = thumbnail(sample.path)
            canvas = Image.new("RGB", (LONGEST, picture.height + (below.height if below else 0)), "white")
            canvas.paste(picture, ((LONGEST - picture.width) // 2, 0))
            if below:
                canvas.paste(below, ((LONGEST - below.width) // 2, picture.height))
            drawn.append(canvas)
        return drawn[0], drawn[1]

    return draw
