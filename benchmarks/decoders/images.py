"""Networks that say something of a whole image or of a pair: classes, embeddings, distances, depth."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from benchmarks.decoders.rows import BATCH, Case, row

CLASSES = 1000


@row("classification_pyt (1,000 classes)", "classification_pyt")
def classification() -> Case:
    """Softmax of logits."""
    from nvidia_tao_deploy.families.classification import softmax

    logits = np.random.default_rng(0).normal(0, 3, (BATCH, CLASSES)).astype(np.float32)

    def plain() -> list[Any]:
        found = []
        for line in logits:
            odds = [math.exp(value) for value in line.tolist()]
            total = sum(odds)
            found.append([value / total for value in odds])
        return found

    return Case(lambda: [each.scores for each in softmax(logits)], plain)


@row("classification_tf1/tf2, multitask_classification (1,000 probabilities, best 5)",
     "classification_tf1", "classification_tf2", "multitask_classification")  # fmt: skip
def probabilities() -> Case:
    """Probabilities as they are, and the best five of them."""
    from nvidia_tao_deploy.families.classification import probabilities
    from nvidia_tao_deploy.predictions.detr import top_k

    scores = np.random.default_rng(0).dirichlet(np.ones(CLASSES), 64).astype(np.float32)

    def plain() -> list[Any]:
        found = []
        for line in scores:
            values = [float(value) for value in line]
            found.append(sorted(range(CLASSES), key=lambda i: (-values[i], i))[:5])
        return found

    return Case(lambda: [top_k(each.scores, 5) for each in probabilities(scores)], plain)


@row("ml_recog (256 dimensions, gallery of 1,000, best 5)", "ml_recog")
def ml_recog() -> Case:
    """The nearest five of a gallery."""
    from nvidia_tao_deploy.metrics.retrieval import nearest, normalize_rows

    rng = np.random.default_rng(0)
    gallery, queries = (normalize_rows(rng.normal(size=(n, 256))) for n in (1000, 64))

    def plain() -> list[Any]:
        rows = gallery.tolist()
        found = []
        for query in queries[:2].tolist():
            far = [sum((a - b) ** 2 for a, b in zip(query, line, strict=True)) for line in rows]
            found.append(sorted(range(len(far)), key=far.__getitem__)[:5])
        return found

    return Case(lambda: list(nearest(gallery, queries, 5)[0]), plain, 2 / 64)


@row("optical_inspection, visual_changenet classify (256 dimensions)", "optical_inspection", "visual_changenet")
def distances() -> Case:
    """Distances of pairs of embeddings."""
    from nvidia_tao_deploy.cv.optical_inspection import distances

    units, golden = np.random.default_rng(0).normal(size=(2, 32, 256)).astype(np.float32)

    def plain() -> list[Any]:
        pairs = zip(units.tolist(), golden.tolist(), strict=True)
        return [math.sqrt(sum((a - b) ** 2 for a, b in zip(one, other, strict=True))) for one, other in pairs]

    return Case(lambda: distances({"output_1": units, "output_2": golden}, []), plain)


@row("depth_net (480x640 disparities and their nine figures)", "depth_net")
def depth_net() -> Case:
    """The stereo figures of every pixel; the map itself is the model's output."""
    from nvidia_tao_deploy.metrics.depth import stereo_errors

    rng = np.random.default_rng(0)
    truth = rng.uniform(1, 60, (480, 640)).astype(np.float32)
    found = (truth + rng.normal(0, 2, truth.shape)).clip(0.1).astype(np.float32)

    def plain() -> list[Any]:
        far = [0] * 4
        absolute = relative = squares = logs = total = 0.0
        for p, g in zip(found.ravel().tolist(), truth.ravel().tolist(), strict=True):
            error = abs(p - g)
            far = [far[0] + (error > 3 and error / g > 0.05), *(far[i] + (error > i) for i in (1, 2, 3))]
            absolute, relative, squares = absolute + error, relative + error / g, squares + error**2
            logs += (math.log(max(p, 1e-8)) - math.log(max(g, 1e-8))) ** 2
            total += g
        n = found.size
        spread = sum(abs(g - total / n) for g in truth.ravel().tolist())
        figures = [*(k / n for k in far), absolute / n, relative / n, squares / spread]
        return [[*figures, math.sqrt(squares / n), math.sqrt(logs / n)]]

    return Case(lambda: [np.array(list(stereo_errors(found.ravel(), truth.ravel()).values()))], plain)


@row("clip, video_clip (512 dimensions, 1,000 pairs)", "clip", "video_clip")
def clip() -> Case:
    """Where each image's text stands among all texts; the embeddings themselves are the models' outputs."""
    from nvidia_tao_deploy.metrics.cross_retrieval import query_figures
    from nvidia_tao_deploy.metrics.retrieval import normalize_rows

    rng = np.random.default_rng(0)
    images = normalize_rows(rng.normal(size=(1000, 512)))
    texts = normalize_rows(images + rng.normal(0, 0.1, images.shape))
    relevant = [[i] for i in range(len(images))]

    def plain() -> list[Any]:
        rows = texts.tolist()
        ranks = []
        for number, image in enumerate(images[:4].tolist()):
            near = [sum(a * b for a, b in zip(image, line, strict=True)) for line in rows]
            order = sorted(range(len(near)), key=lambda i: (-near[i], i))
            ranks.append(order.index(number) + 1)
        return [[rank] for rank in ranks]

    def ours() -> list[Any]:
        return list(query_figures(images, texts, relevant).first_rank[:, None])

    return Case(ours, plain, 4 / 1000)
