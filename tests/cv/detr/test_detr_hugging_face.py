"""Our decode against Hugging Face's post-processing of the same outputs (box clipping apart, which it lacks)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from detr_replay import write_vocabulary

from nvidia_tao_deploy.predictions.detr import decode_detr
from nvidia_tao_deploy.transforms.transform import Geometry

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
SIZES = [(640, 480), (33, 1001)]
GEOMETRIES = [Geometry(size, (64, 64), (64 / size[0], 64 / size[1])) for size in SIZES]


def outputs(seed: int, channels: int) -> Any:
    rng = np.random.default_rng(seed)
    logits = rng.normal(-2, 2, (2, 60, channels)).astype(np.float32)
    center = rng.uniform(0.3, 0.7, (2, 60, 2))
    boxes = np.concatenate([center, rng.uniform(0.01, 0.5, (2, 60, 2))], axis=2).astype(np.float32)
    return SimpleNamespace(logits=torch.tensor(logits), pred_boxes=torch.tensor(boxes))


def same(found: Any, theirs: Any) -> None:
    np.testing.assert_allclose(found.scores, theirs["scores"].numpy(), rtol=1e-6)
    np.testing.assert_array_equal(found.class_ids, theirs["labels"].numpy())
    np.testing.assert_allclose(found.boxes_xyxy, theirs["boxes"].numpy(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_deformable_detr(seed: int) -> None:
    from transformers.models.deformable_detr.image_processing_pil_deformable_detr import (
        DeformableDetrImageProcessorPil as Theirs,
    )

    raw = outputs(seed, 7)
    post = Theirs.post_process_object_detection
    theirs = post(None, raw, threshold=-1, target_sizes=[size[::-1] for size in SIZES], top_k=100)
    ours = decode_detr(raw.logits.numpy(), raw.pred_boxes.numpy(), GEOMETRIES, 100)
    for found, wanted in zip(ours, theirs, strict=True):
        same(found, wanted)


@pytest.mark.parametrize("seed", range(3))
def test_rt_detr(seed: int) -> None:
    from transformers.models.rt_detr.image_processing_pil_rt_detr import RTDetrImageProcessorPil as Theirs

    raw = outputs(seed, 5)
    post = Theirs.post_process_object_detection
    theirs = post(None, raw, threshold=-1, target_sizes=torch.tensor([size[::-1] for size in SIZES]))
    ours = decode_detr(raw.logits.numpy(), raw.pred_boxes.numpy(), GEOMETRIES, 60)  # one per query, as there
    for found, wanted in zip(ours, theirs, strict=True):
        same(found, wanted)


@pytest.mark.parametrize("seed", range(3))
def test_grounding_dino_phrases(seed: int, tmp_path: Any) -> None:
    """There: the best token of each query scores it, tokens above the threshold name it; here the expression task."""
    from transformers import BertTokenizerFast
    from transformers.models.grounding_dino.processing_grounding_dino import GroundingDinoProcessor

    from nvidia_tao_deploy.cv.mask_grounding_dino.decode import decode_expressions
    from nvidia_tao_deploy.transforms.prompt import PromptEncoder, PromptGeometry
    from nvidia_tao_deploy.transforms.tokenizer import load_tokenizer

    folder = write_vocabulary(tmp_path / "bert")
    prompt = PromptEncoder(load_tokenizer(str(folder)), 12).expression("the red car on the left .")
    raw = outputs(seed, 12)
    raw.logits[:, :, ~torch.tensor(prompt.attention_mask)] = -torch.inf
    raw.input_ids = torch.tensor(np.stack([prompt.input_ids] * 2))
    tokenizer = BertTokenizerFast(vocab=str(folder / "vocab.txt"), do_lower_case=True)
    processor = SimpleNamespace(tokenizer=tokenizer, batch_decode=tokenizer.batch_decode)
    sizes = [size[::-1] for size in SIZES]
    theirs = GroundingDinoProcessor.post_process_grounded_object_detection(
        processor, raw, threshold=0.6, text_threshold=0.5, target_sizes=sizes
    )
    everywhere = {
        "pred_logits": raw.logits.numpy(),
        "pred_boxes": raw.pred_boxes.numpy(),
        "pred_masks": np.full((2, 60, 1, 4, 4), 3, np.float32),
        "no_targets": np.full((2, 1), -3, np.float32),
        "union_mask_logits": np.stack([np.zeros((2, 4, 4)), np.ones((2, 4, 4))], axis=1).astype(np.float32),
    }
    geometries = [PromptGeometry(**vars(geometry), prompt=prompt) for geometry in GEOMETRIES]
    ours = decode_expressions(
        everywhere, geometries, 60, least=0.6, text_threshold=0.5, inside_threshold=0.5, nms_threshold=0
    )
    for found, wanted in zip(ours, theirs, strict=True):
        order = np.argsort(-wanted["scores"].numpy(), kind="stable")
        assert len(found.phrases) == len(order) > 3
        np.testing.assert_allclose(found.detections.scores, wanted["scores"].numpy()[order], rtol=1e-6)
        boxes = wanted["boxes"].numpy()[order]
        np.testing.assert_allclose(found.detections.boxes_xyxy, boxes, rtol=1e-5, atol=1e-4)
        labels = [text.replace("[SEP]", "").replace("[CLS]", "").strip() for text in wanted["text_labels"]]
        assert list(found.phrases) == [labels[i] or prompt.caption for i in order]
