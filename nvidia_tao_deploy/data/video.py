"""Frames of video files, by number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import local
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.errors import DataError


class VideoFrames:
    """Reads frames by decoding from the start: containers' seek tables and frame counts are not exact.

    A thread keeps the file it read last open, so the chunks of one video, read in order, decode it once.
    """

    def __init__(self) -> None:
        self._last = local()
        self._counts: dict[Path, int] = {}

    def __call__(
        self, path: Path, count: int, window: Mapping[str, Any]
    ) -> tuple[dict[int, NDArray[np.uint8]], list[int]]:
        """``count`` frames spread over a part of the file.

        Args:
            path: the video.
            count: frames wanted.
            window: see :func:`frame_window`.

        Returns:
            Frames (H, W, 3) RGB by number, and the ``count`` numbers in order (some twice, where there are fewer).

        Raises:
            DataError: the file is missing or no video, or the window is empty.
        """
        video = self._opened(path)
        counted = self._counts.get(path)
        # What the container says is tried first: it is mostly right, and counting decodes the whole file.
        frames = counted or video.stated_frames or self._count(path)
        start, end = frame_window(frames, video.fps, window, path)
        numbers = [start + index for index in spread(end - start, count)]
        found = video.read(numbers)
        if len(found) == len(set(numbers)) and (counted or end < frames or video.at_end()):
            return found, numbers
        if counted:
            raise DataError(f"only {len(found)} of {len(set(numbers))} frames can be decoded", where=str(path))
        self._count(path)
        return self(path, count, window)

    def _opened(self, path: Path) -> _OpenVideo:
        if getattr(self._last, "path", None) != path:
            self._last.path, self._last.video = None, None
            self._last.video = _OpenVideo(path)
            self._last.path = path
        video: _OpenVideo = self._last.video
        return video

    def _count(self, path: Path) -> int:
        count = self._counts[path] = _OpenVideo(path).remaining()
        if not count:
            raise DataError("no frame of the video can be decoded", where=str(path))
        return count


class _OpenVideo:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._open()
        import cv2

        self.fps = float(self._capture.get(cv2.CAP_PROP_FPS))
        self.stated_frames = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def _open(self) -> None:
        import cv2

        self._next, self._kept = 0, (-1, np.empty((0, 0, 3), np.uint8))
        if not self._path.is_file():
            raise DataError("no such video file", where=str(self._path), remedy="Check video_path and video_root.")
        self._capture = cv2.VideoCapture(str(self._path))
        if not self._capture.isOpened():
            raise DataError("cannot decode the video", where=str(self._path), remedy="OpenCV must read its format.")

    def read(self, numbers: Sequence[int]) -> dict[int, NDArray[np.uint8]]:
        """The frames of those ascending numbers that the file has."""
        import cv2

        found: dict[int, NDArray[np.uint8]] = {}
        if any(number < self._next and number != self._kept[0] for number in numbers):
            self._open()
        for number in sorted(set(numbers)):
            if number != self._kept[0]:
                while self._next < number and self._capture.grab():
                    self._next += 1
                decoded, bgr = self._capture.read() if self._next == number else (False, None)
                if not decoded or bgr is None:
                    break
                self._next += 1
                self._kept = (number, np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8))
            found[number] = self._kept[1]
        return found

    def at_end(self) -> bool:
        """No frame follows; else the next one is passed over."""
        more = bool(self._capture.grab())
        self._next += more
        return not more

    def remaining(self) -> int:
        """Frames until the end, which are passed over."""
        while self._capture.grab():
            self._next += 1
        return self._next


def frame_window(frames: int, fps: float, window: Mapping[str, Any], path: Path) -> tuple[int, int]:
    """First frame, and the one after the last: of ``start_frame`` and ``end_frame`` where both are set, else of
    ``start_time_sec`` and ``end_time_sec`` at the mean frame rate, else the whole file.

    Raises:
        DataError: the window holds no frame.
    """
    start, end = 0, frames
    for low, high, per_unit in (("start_frame", "end_frame", None), ("start_time_sec", "end_time_sec", fps)):
        if window.get(low) is not None and window.get(high) is not None:
            first, last = (
                int(window[key]) if per_unit is None else round(float(window[key]) * per_unit) for key in (low, high)
            )
            start, end = min(max(first, 0), frames - 1), min(last, frames)
            break
    if end <= start:
        raise DataError(f"frames {start} to {end} of {frames} are no part of the video", where=str(path))
    return start, end


def spread(available: int, count: int) -> list[int]:
    """``count`` of the numbers 0 .. available - 1: evenly, rounded down; all and then the last again if too few."""
    if available >= count:
        return [int(number) for number in np.linspace(0, available - 1, count)]
    return [min(number, available - 1) for number in range(count)]
