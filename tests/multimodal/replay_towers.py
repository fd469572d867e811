"""Tower models whose embeddings are looked up: by a picture's grey level, and by a text's first word."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LENGTH, STEP = 6, 20  # grey level k * STEP is picture k


def write_tokenizer(folder: Path) -> Path:
    """A word-level tokenizer as Hugging Face saves it: [CLS] words [SEP], padded with <pad>."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {word: i for i, word in enumerate(("<pad>", "[CLS]", "[SEP]", "[UNK]", *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<pad>"}))
    return folder


def write_model(
    path: Path,
    table: np.ndarray,
    *,
    towers: tuple[str, ...] = ("vision", "text"),
    mean: float = 0.5,
    std: float = 0.5,
    batch: int | str = "batch",
    shape: tuple[int, ...] = (3, 8, 8),
) -> Path:
    """Rows of ``table`` (10, D) by picture and, 3 times as long, by word; ``mean``, ``std`` undo the normalization."""
    nodes, inputs, outputs = [], [], []
    weights = {
        "table": table,
        "words": np.concatenate([np.ones((4, table.shape[1])), 3 * table]),
        "mean": np.array(mean),
        "std": np.array(std),
        "levels": np.array(255 / STEP),
    }
    if "vision" in towers:
        inputs.append(helper.make_tensor_value_info("image", TensorProto.FLOAT, (batch, *shape)))
        nodes += [
            helper.make_node("ReduceMean", ["image"], ["tone"], axes=list(range(1, len(shape) + 1)), keepdims=0),
            helper.make_node("Mul", ["tone", "std"], ["toned"]),
            helper.make_node("Add", ["toned", "mean"], ["grey"]),
            helper.make_node("Mul", ["grey", "levels"], ["level"]),
            helper.make_node("Round", ["level"], ["whole"]),
            helper.make_node("Cast", ["whole"], ["picture"], to=TensorProto.INT64),
            helper.make_node("Gather", ["table", "picture"], ["image_embedding"]),
        ]
        outputs.append(helper.make_tensor_value_info("image_embedding", TensorProto.FLOAT, (batch, table.shape[1])))
    if "text" in towers:
        for name in ("input_ids", "attention_mask"):
            inputs.append(helper.make_tensor_value_info(name, TensorProto.INT64, (batch, LENGTH)))
        nodes += [
            helper.make_node("Gather", ["input_ids", "second"], ["word"], axis=1),
            helper.make_node("Gather", ["words", "word"], ["found"]),
            helper.make_node("Cast", ["attention_mask"], ["weights"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMin", ["weights"], ["weight"], axes=[1], keepdims=1),
            helper.make_node("Mul", ["found", "weight"], ["text_embedding"]),
        ]
        outputs.append(helper.make_tensor_value_info("text_embedding", TensorProto.FLOAT, (batch, table.shape[1])))
    nodes.append(helper.make_node("Identity", ["scale"], ["logit_scale"]))
    outputs.append(helper.make_tensor_value_info("logit_scale", TensorProto.FLOAT, ()))
    constants = [numpy_helper.from_array(np.float32(value), name) for name, value in weights.items()]
    constants += [numpy_helper.from_array(np.float32(10), "scale"), numpy_helper.from_array(np.int64(1), "second")]
    graph = helper.make_graph(nodes, "towers", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    path.parent.mkdir(parents=True, exist_ok=True)
    save(model, path)
    return path


def write_sidecars(folder: Path, kind: str = "siglip-replay", canonicalize: bool = False) -> None:
    """The exporter's configuration and tokenizer for models in ``folder``."""
    text = f"model:\n  type: {kind}\n  adaptor_name: null\n  canonicalize_text: {str(canonicalize).lower()}\n"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "replay_config.yaml").write_text(text)
    write_tokenizer(folder / "replay_tokenizer")
