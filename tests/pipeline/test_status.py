"""status.json: record form, sticky KPIs, append, and a folder that cannot be written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nvidia_tao_deploy.errors import DataError
from nvidia_tao_deploy.pipeline.status import StatusLog


def records(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "status.json").read_text().splitlines()]


def test_records_have_the_contracts_keys_in_order_and_are_appended(tmp_path: Path) -> None:
    StatusLog(tmp_path).record("STARTED", "Starting dino gen_trt_engine.")
    StatusLog(tmp_path).record("SUCCESS", "Gen_trt_engine finished successfully.")
    first, second = records(tmp_path)
    assert list(first) == ["date", "time", "status", "verbosity", "message"]
    assert (first["status"], second["status"]) == ("STARTED", "SUCCESS")
    month, day, year = str(first["date"]).split("/")
    assert str(int(month)) == month
    assert str(int(day)) == day
    assert len(year) == 4
    assert all(str(int(part)) == part for part in str(first["time"]).split(":"))


def test_kpis_stay_on_every_later_record_and_nan_is_null(tmp_path: Path) -> None:
    log = StatusLog(tmp_path)
    log.record("RUNNING", "measured", kpi={"mAP": 0.5, "AP_small": float("nan")})
    log.record("SUCCESS", "done")
    assert records(tmp_path)[-1]["kpi"] == {"mAP": 0.5, "AP_small": None}
    assert "NaN" not in (tmp_path / "status.json").read_text()


def test_a_folder_that_is_a_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(DataError, match="taken"):
        StatusLog(tmp_path / "taken")
