"""A frame as the network takes it, and what the tracker must know of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.cv.sparse4d.spec import Dataset, Model
from nvidia_tao_deploy.data.frames import POSE, read_tensors
from nvidia_tao_deploy.data.image import Backend, decode
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.errors import DataError
from nvidia_tao_deploy.transforms.transform import Geometry

Floats = NDArray[np.float32]
# What a frame tells the tracker, beside the model's inputs: scene, seconds, seconds since the scene's start, pose.
SCENE, TIME, ELAPSED, FRAME_POSE = "frame_scene", "frame_time", "frame_elapsed", "frame_pose"


class FrameTransform:
    """Fills ``img``, ``projection_mat`` and ``image_wh`` from a frame's tensors or images, and the tracker's facts.

    Images as in training: RGB, Pillow bicubic until both sides cover the input, cut in the middle and above the bottom,
    channels swapped if asked for, (x - mean) / std by position.
    """

    def __init__(self, model: Model, settings: Dataset, backend: Backend) -> None:
        self._size, self._cameras = (model.input_width, model.input_height), model.num_cameras
        self._settings, self._backend = settings, backend

    def __call__(self, sample: Sample, out: Mapping[str, NDArray[Any]]) -> Geometry:
        """Write the frame into ``out``; DataError where a file cannot be read, or does not fit the model."""
        meta = sample.meta
        if "projections" in meta:
            for camera, path in enumerate(sample.paths):
                out["img"][camera], placed = self.image(decode(path, "RGB", self._backend))
                out["projection_mat"][camera] = placed @ meta["projections"][camera]
            out["image_wh"][...] = self._size
            pose = meta["pose"]
        else:
            shapes = {name: (1, *out[name].shape) for name in ("img", "projection_mat", "image_wh")}
            tensors = read_tensors(sample.path, shapes)
            if (tensors["image_wh"] != np.array(self._size, np.float32)).any():
                wide, high = self._size
                raise DataError(f"image_wh is not ({wide}, {high}), width and height", where=str(sample.path))
            for name in shapes:
                out[name][...] = tensors[name][0]
            pose = tensors[POSE]
        facts = {SCENE: meta["scene_number"], TIME: meta["timestamp"], ELAPSED: meta["elapsed"], FRAME_POSE: pose}
        for name, value in facts.items():
            out[name][...] = value
        return Geometry(self._size, self._size, (1.0, 1.0))

    def image(self, pixels: NDArray[Any]) -> tuple[Floats, NDArray[np.float64]]:
        """(3, H, W) input planes of one camera's image, and the (4, 4) matrix that takes its pixels to the input's."""
        from PIL import Image

        (high, wide), (net_wide, net_high) = pixels.shape[:2], self._size
        scale = max(net_high / high, net_wide / wide)
        width, height = int(wide * scale), int(high * scale)
        left = int(max(0, width - net_wide) / 2)
        top = int((1 - float(np.mean(self._settings.bot_pct_lim))) * height) - net_high
        resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
        cut = np.asarray(resized.crop((left, top, left + net_wide, top + net_high)), dtype=np.float32)
        planes = (cut[..., ::-1] if self._settings.to_rgb else cut).transpose(2, 0, 1)
        mean, std = (np.array(v, np.float32)[:, None, None] for v in (self._settings.mean, self._settings.std))
        placed = np.array([[scale, 0, -left, 0], [0, scale, -top, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        return np.asarray((planes - mean) * (1 / std)), placed

    def describe(self) -> dict[str, Any]:
        return {"resize": "cover_bicubic", "cut": "bottom", "layout": "NCHW", **self._settings.model_dump()}
