"""Classification figures against scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics

from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.errors import DataError, ModelError
from nvidia_tao_deploy.metrics.topk import (
    TopKMetric,
    class_figures,
    classification_table,
    confusion_matrix,
    top_k_accuracy,
)
from nvidia_tao_deploy.predictions.types import Classification


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("k", [1, 2, 5, 9])
def test_top_k_equals_scikit_learn_ties_included(seed, k):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 6, (200, 9)) / 5 if seed % 2 else rng.random((200, 9))
    labels = rng.integers(0, 7, 200)
    wanted = sklearn.metrics.top_k_accuracy_score(labels, scores, k=k, labels=np.arange(9)) if k < 9 else 1.0
    assert top_k_accuracy(scores, labels, k) == pytest.approx(wanted, abs=1e-15)


def test_two_classes_are_decided_by_argmax():
    logits = np.array([[-3.0, -1.0], [2.0, 1.5], [0.4, 0.4]])
    assert top_k_accuracy(logits, np.array([1, 0, 0]), 1) == 1.0
    assert top_k_accuracy(logits, np.array([0, 1, 1]), 2) == 1.0


def test_matrix_and_figures_equal_scikit_learn():
    rng = np.random.default_rng(1)
    labels, predicted = rng.integers(0, 5, 300), rng.integers(0, 6, 300)
    matrix = confusion_matrix(labels, predicted, 7)
    np.testing.assert_array_equal(matrix, sklearn.metrics.confusion_matrix(labels, predicted, labels=range(7)))
    wanted = sklearn.metrics.precision_recall_fscore_support(labels, predicted, labels=range(7), zero_division=0)
    figures = class_figures(matrix)
    for ours, theirs in zip((figures.precision, figures.recall, figures.f1, figures.support), wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)
    names = [f"class {i}" for i in range(7)]
    report = sklearn.metrics.classification_report(
        labels, predicted, labels=range(7), target_names=names, zero_division=0
    )
    numbers = [line.split() for line in report.splitlines() if line and "accuracy" not in line]
    assert [
        line.split() for line in classification_table(matrix, names).splitlines() if line and "acc" not in line
    ] == (numbers)


def test_metric_keys_and_report():
    metric = TopKMetric(["a", "b", "c"], 2)
    rows = [([0.7, 0.2, 0.1], 0), ([0.1, 0.5, 0.4], 2), ([0.1, 0.5, 0.4], 0), ([0.0, 0.0, 1.0], 2)]
    for scores, label in rows:
        metric.update(Sample("x", (), label), Classification(np.array(scores)))
    assert metric.compute() == {"top_k_accuracy": 0.75}
    np.testing.assert_array_equal(metric.confusion(), [[1, 1, 0], [0, 0, 0], [0, 1, 1]])
    assert "weighted avg" in metric.report()
    assert "every one is among" not in metric.report()


def test_a_k_of_all_classes_is_told() -> None:
    metric = TopKMetric(["a", "b", "c"], 3)
    metric.update(Sample("x", (), 1), Classification(np.array([0.7, 0.2, 0.1])))
    assert "k is 3: of 3 classes every one is among the 3 best" in metric.report()


def test_mistakes_are_named():
    metric = TopKMetric(["a", "b"])
    with pytest.raises(DataError, match="no image"):
        metric.compute()
    with pytest.raises(ModelError, match="3 scores, the class list has 2"):
        metric.update(Sample("x", (), 0), Classification(np.zeros(3)))
    with pytest.raises(ModelError, match="NaN"):
        metric.update(Sample("x", (), 0), Classification(np.array([0, np.nan])))


def test_condensed_scores_are_enough() -> None:
    """Ranks send the best class and the label's rank instead of the scores; nothing changes, ties included."""
    rng = np.random.default_rng(4)
    for classes, k in ((2, 1), (2, 2), (9, 3)):
        whole, condensed = (TopKMetric([f"c{i}" for i in range(classes)], k=k) for _ in range(2))
        for index in range(60):
            sample = Sample(index, (Path("a"),), int(rng.integers(classes)))
            prediction = Classification(rng.integers(0, 4, classes) / 4)
            whole.update(sample, prediction)
            condensed.update(sample, condensed.condensed(sample, prediction))
        assert whole.compute() == condensed.compute()
        np.testing.assert_array_equal(whole.confusion(), condensed.confusion())
