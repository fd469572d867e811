"""The page of ``diagnose``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nvidia_tao_deploy.data.text import counted
from nvidia_tao_deploy.report import html

SHOWN = 40  # bars


def diagnosed_page(report: Mapping[str, Any]) -> str:
    """HTML of what diagnose.json holds."""
    metric, precision, blocks, limit = (report[key] for key in ("metric", "precision", "blocks", "max_metric_drop"))
    values = [["fp32", report["fp32"], html.percent(0), 0]]
    for text, key in ((f"all {precision}", "quantized"), ("mixed", "mixed")):
        values.append([text, report[key]["value"], html.percent(report[key]["loss_percent"]), report[key]["layers"]])
    methods = report["loss_percent_by_method"]
    bars = {
        kind: [
            (row["name"], row["loss_percent"], f"{html.percent(row['loss_percent'])} %{note(row)}")
            for row in rows
            if row["loss_percent"] is not None
        ][:SHOWN]
        for kind, rows, note in (
            ("block", blocks, lambda row: f", {len(row['layers'])} layer{'s' * (len(row['layers']) > 1)}"),
            ("layer", report["layers"], lambda row: ", kept in float" if row["kept_in_float"] else ""),
        )
    }
    rows = [
        [
            row["name"],
            rank,
            html.percent(row["loss_percent"]),
            row["tensor_error"],
            "float" if row["kept_in_float"] else precision,
        ]
        for rank, row in enumerate(report["layers"], 1)
    ]
    listing = "gen_trt_engine:\n  tensorrt:\n    layers_precision:\n"
    listing += "\n".join(f'      - "{entry}"' for entry in report["layers_precision"])
    summary = html.paragraphs(report["summary"][:1], "verdict") + html.paragraphs(report["summary"][1:])
    return html.page(
        f"{report['network']}: which layers lose accuracy in {precision}",
        f"{metric} on {counted(report['images'], report['unit'])} of the evaluation set, run with ONNX Runtime",
        [
            ("Result", summary + html.table(["", metric, "loss %", f"{precision} layers"], values)),
            (
                f"Calibration methods, all layers in {precision}",
                html.table(["method", "loss %"], [[name, html.percent(loss)] for name, loss in methods.items()])
                if len(methods) > 1
                else "",
            ),
            (f"Loss of {metric} with one block alone in {precision}", html.bars(bars["block"], limit)),
            (f"Loss of {metric} with one layer alone in {precision}", html.bars(bars["layer"], limit)),
            ("For the spec", html.listing(listing) if report["layers_precision"] else ""),
            ("All layers", html.table(["layer", "rank", "loss %", "output error (1 - cosine)", "mixed"], rows)),
        ],
    )
