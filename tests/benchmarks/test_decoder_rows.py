"""Every network has its decoder in the table, and the rows that are quick agree with plain loops."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

import pytest

from benchmarks import decoders
from benchmarks.decoders.rows import ROWS, Row, check_agreement
from nvidia_tao_deploy.networks import NETWORKS

for module in iter_modules(decoders.__path__):
    import_module(f"{decoders.__name__}.{module.name}")

QUICK = (
    "yolo_v4",
    "ssd",
    "efficientdet_tf2",
    "faster_rcnn",
    "classification_pyt",
    "optical_inspection",
    "lprnet",
    "ocrnet",
)


def test_every_network_that_decodes_has_a_row() -> None:
    named = {network for row in ROWS for network in row.networks}
    decoding = {name for name, entry in NETWORKS.items() if {"evaluate", "inference"} & set(entry.actions)}
    assert decoding - named == set()
    assert named - set(NETWORKS) == set()


@pytest.mark.parametrize("row", [row for row in ROWS if set(row.networks) & set(QUICK)], ids=lambda row: row.name)
def test_quick_rows_agree(row: Row) -> None:
    ours, plain, _ = row.make()
    check_agreement(ours(), plain())
