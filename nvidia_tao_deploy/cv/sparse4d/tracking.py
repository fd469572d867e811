"""Instances that live from frame to frame, and detections: numpy float32, one frame at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.cv.sparse4d.spec import Inference, Model
from nvidia_tao_deploy.errors import ModelError

Floats = NDArray[np.float32]
CENTRE, SIZE, SIN, COS, VELOCITY = slice(0, 3), slice(3, 6), 6, 7, slice(8, 11)


@dataclass(frozen=True)
class Frame:
    """When and where a frame was taken.

    Attributes:
        scene: its number; instances do not pass from one to another.
        time: seconds.
        pose: (4, 4) float64, from the vehicle's frame to one that stands still.
    """

    scene: int
    time: float
    pose: NDArray[np.float64]


@dataclass(frozen=True)
class Instances:
    """What is kept of a frame: K instances.

    Attributes:
        features: (K, E).
        anchors: (K, 11) x, y, z, log w, log l, log h, sin yaw, cos yaw, vx, vy, vz in the frame's own coordinates.
        confidences: (K,).
        ids: (K,) int64; -1: not tracked.
    """

    features: Floats
    anchors: Floats
    confidences: Floats
    ids: NDArray[np.int64]


@dataclass(frozen=True)
class Objects:
    """Detections of a frame, best first.

    Attributes:
        boxes: (N, 10) x, y, z, w, l, h, yaw, vx, vy, vz; metres, radians, metres per second.
        scores: (N,) class score times centerness.
        class_ids: (N,).
        class_scores: (N,).
        ids: (N,) of the tracked instance; -1: none.
    """

    boxes: Floats
    scores: Floats
    class_ids: NDArray[np.int64]
    class_scores: Floats
    ids: NDArray[np.int64]


class Tracker:
    """Gives ids, and keeps the best K instances of the last frame for the next one."""

    def __init__(self, model: Model, settings: Inference) -> None:
        self._model, self._settings = model, settings
        self._kept: Instances | None = None
        self._last: Frame | None = None
        self._next_id = 0

    def start(self, frame: Frame) -> tuple[Floats, Floats] | None:
        """(K, E) features and (K, 11) anchors of the last frame, moved to now; None where a new sequence begins."""
        last = self._last
        fresh = last is None or last.scene != frame.scene
        if last is None or fresh or not 0 < frame.time - last.time <= self._settings.max_time_interval:
            self._kept = None
        self._last = frame
        if last is None or self._kept is None:
            return None
        return self._kept.features, moved(self._kept.anchors, last, frame)

    def finish(self, outputs: Mapping[str, NDArray[Any]]) -> NDArray[np.int64]:
        """(Q,) the id of every query of the frame, -1 for none; the best K instances are kept."""
        settings, kept, count = self._settings, self._kept, self._model.num_temp_instances
        confidences = sigmoid(outputs["classification2"][0].max(axis=1))
        ids = np.full(len(confidences), -1, np.int64)
        if kept is not None:
            ids[:count] = kept.ids
        new = np.flatnonzero((ids < 0) & (confidences >= settings.tracking_threshold))
        ids[new] = self._next_id + np.arange(len(new))
        self._next_id += len(new)
        if kept is not None:
            decayed = kept.confidences * np.float32(settings.confidence_decay)
            confidences[:count] = np.maximum(confidences[:count], decayed)
        best = top(confidences, count)
        features, anchors = (outputs[f"output_cached_{name}"][0, best] for name in ("feature", "anchor"))
        self._kept = Instances(features, anchors, confidences[best], ids[best])
        return ids


def moved(anchors: Floats, last: Frame, now: Frame) -> Floats:
    """Anchors of the last frame in the coordinates of this one, each carried along by its velocity."""
    step = np.float32(now.time - last.time)
    change = (np.linalg.inv(now.pose) @ last.pose).astype(np.float32)
    turn, shift = change[:3, :3], change[:3, 3]
    found: Floats = anchors.copy()
    found[:, CENTRE] = (anchors[:, CENTRE] + anchors[:, VELOCITY] * step) @ turn.T + shift
    found[:, [COS, SIN]] = anchors[:, [COS, SIN]] @ turn[:2, :2].T
    found[:, VELOCITY] = anchors[:, VELOCITY] @ turn.T
    return found


def objects(outputs: Mapping[str, NDArray[Any]], ids: NDArray[np.int64], settings: Inference) -> Objects:
    """The frame's detections: the best class scores, ordered by score times centerness.

    Args:
        outputs: ``classification2`` (1, Q, n), ``quality2`` (1, Q, 2), ``prediction6`` (1, Q, 11).
        ids: (Q,) of the queries.
        settings: ``num_output`` and ``score_threshold``, which the class score alone must reach.

    Raises:
        ModelError: a box is not finite.
    """
    logits, quality = outputs["classification2"][0], outputs["quality2"][0]
    labels = logits.argmax(axis=1)
    raw = sigmoid(logits.max(axis=1))
    best = top(raw, settings.num_output)
    scores = raw[best] * sigmoid(quality[best, 0])
    order = top(scores, len(scores))
    order = order[raw[best[order]] >= np.float32(settings.score_threshold)]
    chosen = best[order]
    anchors = outputs["prediction6"][0, chosen]
    yaw = np.arctan2(anchors[:, SIN], anchors[:, COS])
    with np.errstate(over="ignore"):
        boxes = np.concatenate(
            [anchors[:, CENTRE], np.exp(anchors[:, SIZE]), yaw[:, None], anchors[:, VELOCITY]], axis=1
        )
    if not np.isfinite(boxes).all():
        raise ModelError("the model gives boxes that are not finite", remedy="Build the engine in fp32.")
    return Objects(boxes, scores[order], labels[chosen], raw[chosen], ids[chosen])


def sigmoid(logits: Floats) -> Floats:
    """exp(-log(1 + exp(-x))), which does not overflow."""
    return np.asarray(np.exp(-np.logaddexp(np.float32(0), -logits)), dtype=np.float32)


def top(scores: Floats, count: int) -> NDArray[np.int64]:
    """Indices of the largest, largest first; equal ones lowest index first."""
    return np.asarray(np.argsort(-scores, kind="stable")[:count])
