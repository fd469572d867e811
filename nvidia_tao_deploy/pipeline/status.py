"""status.json: JSON lines that say how a run began, what it measured and how it ended."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from nvidia_tao_deploy.errors import DataError
from nvidia_tao_deploy.files import plain
from nvidia_tao_deploy.pipeline.ranks import current


class StatusLog:
    """Appends records to ``<folder>/status.json``; each is on disk before the call returns.

    ``kpi`` numbers, once given, are repeated in every later record, so the closing record carries them. Of several
    ranks, rank 0 alone writes.
    """

    def __init__(self, folder: Path) -> None:
        """Open for appending.

        Raises:
            DataError: the folder cannot be made or written.
        """
        self.path = folder / "status.json"
        self._kpi: dict[str, float] = {}
        if not current().leads:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.path.open("a", encoding="utf-8").close()
        except OSError as error:
            raise DataError(
                f"cannot write into the results folder: {error.strerror}",
                where=str(folder),
                remedy="Set results_dir to a folder you may write to.",
            ) from error

    def record(
        self,
        status: str,
        message: str,
        *,
        verbosity: str = "INFO",
        kpi: Mapping[str, float] | None = None,
    ) -> None:
        """Append one record; ``status`` is STARTED, RUNNING, SUCCESS or FAILURE."""
        if not current().leads:
            return
        self._kpi.update(kpi or {})
        now = datetime.now()
        entry: dict[str, object] = {
            "date": f"{now.month}/{now.day}/{now.year}",
            "time": f"{now.hour}:{now.minute}:{now.second}",
            "status": status,
            "verbosity": verbosity,
        }
        if message:
            entry["message"] = message
        if self._kpi:
            entry["kpi"] = plain(self._kpi)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
