"""Custom Vision exports made here: replay models in every exported form, packed as the service packs them."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from cv.classification.replay_classifier import write_images, write_replay
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

METADATA = {"Image.BitmapPixelFormat": "Bgr8", "Image.NominalPixelRange": "NominalRange_0_255"}
SIZE = (16, 12)  # height, width


class Form:
    """One exported form: what the replay gives, and the nodes that bring it into the form's outputs."""

    def __init__(self, tables: Mapping[str, NDArray[Any]], shapes: Mapping[str, tuple[int, ...]], **more: Any) -> None:
        self.tables, self.shapes = tables, shapes
        self.names: Sequence[str] = more.get("names", ())
        self.zipmap = bool(self.names)


def scores(rows: NDArray[Any], output: str = "model_output") -> Form:
    """A row of probabilities per image."""
    return Form({output: rows}, {output: (rows.shape[1],)})


def dictionaries(rows: NDArray[Any], names: Sequence[str]) -> Form:
    """``loss``, a dictionary per image, and ``classLabel``, its best key."""
    return Form({"loss": rows}, {"loss": (rows.shape[1],)}, names=names)


def grid(cells: NDArray[Any]) -> Form:
    """(N, 5 * (5 + C), H, W)."""
    return Form({"model_outputs0": cells.reshape(len(cells), -1)}, {"model_outputs0": cells.shape[1:]})


def boxes(found: NDArray[Any], values: NDArray[Any], classes: NDArray[Any]) -> Form:
    """(N, K, 4), (N, K), (N, K)."""
    tables = {"detected_boxes": found.reshape(len(found), -1), "detected_scores": values, "detected_classes": classes}
    shapes = {
        "detected_boxes": found.shape[1:],
        "detected_scores": values.shape[1:],
        "detected_classes": classes.shape[1:],
    }
    return Form(tables, shapes)


def write_model(path: Path, form: Form, features: NDArray[Any], metadata: Mapping[str, str] | None = None) -> Path:
    """The ONNX file; ``features`` are the channel averages with which each image must arrive."""
    inner = {f"flat_{name}": table for name, table in form.tables.items()}
    model = onnx.load(write_replay(path, features, inner, input_name="data", size=SIZE, tolerance=8.0))
    graph = model.graph
    del graph.output[:]
    for name, shape in form.shapes.items():
        graph.initializer.append(numpy_helper.from_array(np.array([-1, *shape], np.int64), f"shape_{name}"))
        kind = TensorProto.INT64 if name == "detected_classes" else TensorProto.FLOAT
        last = f"row_{name}" if form.zipmap else name
        graph.node.append(helper.make_node("Reshape", [f"flat_{name}", f"shape_{name}"], [f"float_{name}"]))
        graph.node.append(helper.make_node("Cast", [f"float_{name}"], [last], to=kind))
        if not form.zipmap:
            graph.output.append(helper.make_tensor_value_info(name, kind, ["N", *shape]))
    if form.zipmap:
        names = list(form.names)
        graph.node.extend(
            [
                helper.make_node("ZipMap", ["row_loss"], ["loss"], domain="ai.onnx.ml", classlabels_strings=names),
                helper.make_node("ArgMax", ["row_loss"], ["best"], axis=1, keepdims=1),
                helper.make_node(
                    "LabelEncoder", ["best"], ["classLabel"], domain="ai.onnx.ml",
                    keys_int64s=list(range(len(names))), values_strings=names,
                ),
            ]
        )  # fmt: skip
        scores_of = helper.make_map_type_proto(
            TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, None)
        )
        graph.output.append(helper.make_tensor_value_info("classLabel", TensorProto.STRING, ["N", 1]))
        graph.output.append(helper.make_value_info("loss", helper.make_sequence_type_proto(scores_of)))
        model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 2))
    helper.set_model_props(model, dict(METADATA if metadata is None else metadata))
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def pack(archive: Path, model: Path, labels: Sequence[str] | None, **files: str) -> Path:
    """The zip of an export, with the files that the service adds."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        target.write(model, "model.onnx")
        if labels is not None:
            target.writestr("labels.txt", "\r\n".join(labels))
        target.writestr("cvexport.manifest", '{"Platform": "ONNX", "ModelFileName": "model.onnx"}')
        for name, text in files.items():
            target.writestr(name, text)
    return archive


def class_images(folder: Path, labels: Sequence[str], truth: Sequence[int]) -> NDArray[np.uint8]:
    """One image per entry of ``truth`` in its class's folder; their colours (N, 3), in sorted order of the paths."""
    names = sorted(f"{labels[label]}/{i:02d}.png" for i, label in enumerate(truth))
    return write_images(folder, names)
