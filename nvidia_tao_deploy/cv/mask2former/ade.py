"""ADE data: JSON lines that name an image and its mask."""

from __future__ import annotations

import json
import os
from pathlib import Path

from nvidia_tao_deploy.data.masks import MaskCodes, MaskPairs, existing
from nvidia_tao_deploy.data.text import read_lines
from nvidia_tao_deploy.errors import DataError


class AdeMasks(MaskPairs):
    """Lines {img, segm} below ``root_dir``; mask value k is class k - 1, 0 and, unless a class, 255 do not count.

    Args:
        annot_file: the JSON lines.
        root_dir: folder of the files; may be empty.
        classes: of the model.
        strict: raise for images missing on disk instead of skipping them.

    Raises:
        DataError: the file is missing or malformed, a mask is missing, or no image is there.
    """

    def __init__(self, annot_file: Path | str, root_dir: Path | str, classes: int, *, strict: bool = False) -> None:
        pairs: list[tuple[Path, Path]] = []
        issues: list[str] = []
        for number, line in enumerate(read_lines(Path(annot_file)), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                image, mask = (Path(os.path.abspath(Path(root_dir) / row[key])) for key in ("img", "segm"))
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise DataError("not an object with the keys img and segm", where=f"{annot_file}:{number}") from error
            pairs.append((image, mask))
        if not pairs:
            raise DataError("the file lists no image", where=str(annot_file))
        ignored = {0, 255} if classes < 255 else {0}
        codes = MaskCodes({value: value - 1 for value in range(1, classes + 1)}, ignored=ignored)
        super().__init__(existing(pairs, issues, strict), codes, issues)
