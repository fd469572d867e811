"""Files of text detection: corners, the picture with outlines, the probability map."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nvidia_tao_deploy.data.image import decode_upright
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.files import write_text
from nvidia_tao_deploy.predictions.detection_writer import save_picture
from nvidia_tao_deploy.predictions.output_paths import OutputPaths
from nvidia_tao_deploy.predictions.polygons import TextRegions

RED = (255, 0, 0)
THICKNESS = 2


class PolygonWriter:
    """Writes ``<stem>.txt`` (x1,y1,...,score per region), ``<stem>_result.jpg`` and ``<stem>_pred.jpg``.

    Coordinates are whole source pixels; the score is the shortest decimal form of its float32 value.
    """

    def __init__(self, out_dir: Path | str, root: Path | None) -> None:
        self._folder, self._paths = Path(out_dir), OutputPaths(root)

    def write(self, sample: Sample, prediction: TextRegions) -> None:
        """Write this sample's files."""
        import cv2
        from PIL import Image

        table = self._folder / self._paths(sample.path, ".txt")
        regions = prediction.on_source()
        lines = [
            ",".join([*map(str, points.ravel().tolist()), str(np.float32(score))]) + "\n"
            for points, score in zip(regions, prediction.scores, strict=True)
        ]
        write_text(table, "".join(lines))
        picture = np.array(decode_upright(sample.path))  # decoded pixels may be read-only
        outlines = [points.astype(np.int32).reshape(-1, 1, 2) for points in regions]
        cv2.polylines(picture, outlines, isClosed=True, color=RED, thickness=THICKNESS)
        save_picture(Image.fromarray(picture), table.with_name(f"{table.stem}_result.jpg"))
        if prediction.probability is not None:
            save_picture(Image.fromarray(prediction.probability), table.with_name(f"{table.stem}_pred.jpg"))

    def close(self) -> list[Path]:
        """The folder written to."""
        return [self._folder]
