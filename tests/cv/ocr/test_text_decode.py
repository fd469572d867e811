"""CTC and attention decoding equal the contracts in plain Python; edit distance; characters files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.data.text_labels import TextLabels, outside_dictionary, read_characters
from nvidia_tao_deploy.errors import DataError, ModelError
from nvidia_tao_deploy.metrics.ocr import TextMetric, edit_distance
from nvidia_tao_deploy.predictions.text import Text, decode_attention, decode_ctc


def plain_ctc(ids: list[int], probs: np.ndarray, classes: list[str], blank: int) -> tuple[str, np.float32, list[float]]:
    text, kept, product = "", [], np.float32(1)
    for t, class_id in enumerate(ids):
        product = np.float32(product * probs[t])
        if (t == 0 or class_id != ids[t - 1]) and class_id != blank:
            text += classes[class_id]
            kept.append(float(probs[t]))
    return text, product, kept


@pytest.mark.parametrize("blank", [0, 4], ids=["first", "last"])
@pytest.mark.parametrize("steps", [1, 24])
def test_ctc(blank: int, steps: int) -> None:
    rng = np.random.default_rng(5)
    classes = ["", "a", "bc", "a", "d"] if blank == 0 else ["x", "", "y", "zz", ""]
    ids = rng.integers(0, 5, (200, steps)).astype(np.int32)
    ids[0] = blank  # nothing is read
    probabilities = rng.uniform(0, 1, ids.shape).astype(np.float32)
    for found, row, probs in zip(
        decode_ctc(ids, probabilities, classes, blank), ids.tolist(), probabilities, strict=True
    ):
        text, product, kept = plain_ctc(row, probs, classes, blank)
        assert found.text == text
        assert np.float32(found.confidence) == product
        assert found.character_confidences.tolist() == kept
    assert decode_ctc(ids[:0], probabilities[:0], classes, blank) == []


def test_attention_stops_at_the_end_token() -> None:
    rng = np.random.default_rng(6)
    classes = ["[GO]", "[s]", "a", "bc", "", "é"]
    ids = rng.integers(0, 6, (200, 9))
    ids[0, 0] = 1  # nothing is read: the established code fails
    ids[1] = 3  # no end token: the established code drops the last character
    probabilities = rng.uniform(0, 1, ids.shape).astype(np.float32)
    found = decode_attention(ids, probabilities, classes, stop=1)
    for text, row, probs in zip(found, ids.tolist(), probabilities, strict=True):
        length = row.index(1) if 1 in row else len(row)
        product = np.float32(1)
        for p in probs[:length]:
            product = np.float32(product * p)
        assert text.text == "".join(classes[i] for i in row[:length])
        assert np.float32(text.confidence) == product
    assert (found[0].text, found[0].confidence) == ("", 1.0)
    assert found[1].text == "bc" * 9


def test_ids_and_probabilities_that_cannot_be() -> None:
    ones = np.ones((1, 2), np.float32)
    with pytest.raises(ModelError, match=r"class ids 7, but there are 3 classes.*"):
        decode_ctc(np.array([[0, 7]]), ones, ["a", "b", ""], 2, "chars.txt")
    with pytest.raises(ModelError, match="-1"):
        decode_attention(np.array([[0, -1]]), ones, ["[GO]", "[s]", "a"], 1)
    with pytest.raises(ModelError, match="NaN"):
        decode_ctc(np.array([[0, 1]]), ones * np.nan, ["a", ""], 1)


def test_edit_distance() -> None:
    def plain(a: str, b: str) -> int:
        if not a or not b:
            return len(a) + len(b)
        return min(plain(a[1:], b) + 1, plain(a, b[1:]) + 1, plain(a[1:], b[1:]) + (a[0] != b[0]))

    rng = np.random.default_rng(1)
    words = ["".join(rng.choice(list("abc"), rng.integers(0, 6))) for _ in range(40)]
    for a, b in zip(words, words[::-1], strict=True):
        assert edit_distance(a, b) == plain(a, b)
    assert edit_distance("kitten", "sitting") == 3


def test_characters_files(tmp_path: Path) -> None:
    path = tmp_path / "chars.txt"
    path.write_bytes("\ufeff0\r\n 1 \r\n\r\nÄ\r\n\u2028x\r\n".encode())
    assert read_characters(path) == ["0", "1", "", "Ä", "x"]  # a blank line takes an id, U+2028 ends no line
    path.write_text("a\nb")
    assert read_characters(path) == ["a", "b"]
    path.write_text("\n \n")
    with pytest.raises(DataError, match="empty"):
        read_characters(path)
    with pytest.raises(DataError, match="cannot read"):
        read_characters(tmp_path / "gone.txt")
    assert outside_dictionary(["aé", "é?", "ab"], ["a", "b"]) == {"é": 2, "?": 1}


def test_lists_of_transcripts(tmp_path: Path) -> None:
    for name in ("a.png", "b.JPG", "c.bmp"):
        (tmp_path / name).write_bytes(b"x")
    gt = tmp_path / "gt.txt"
    gt.write_text("b.JPG two words\n\na.png\tone\nc.bmp\ngone.png x\nnotes.txt x\na.png  again \n")
    data = TextLabels.from_list(tmp_path, gt, list("onetwrds agi"))
    assert [(s.id, s.target) for s in (data[i] for i in range(len(data)))] == [
        ("b.JPG", "two words"),
        ("a.png", "one"),
        ("c.bmp", ""),
        ("a.png#7", "again"),
    ]
    assert any("2 lines" in issue and "gone.png (line 5" in issue for issue in data.issues)
    assert any("1 blank line" in issue and issue.endswith("2") for issue in data.issues)
    assert "1 label is empty (kept: no text is right): c.bmp" in data.issues
    assert data.unspellable == 0
    (tmp_path / "0.png").touch()
    (tmp_path / "list").write_text("0.png ab\n0.png aab\n0.png abc\n")  # the first has every character that there is
    assert TextLabels.from_list(tmp_path, tmp_path / "list", ["a", "b"]).unspellable == 1
    with pytest.raises(DataError, match=r"gone\.png"):
        TextLabels.from_list(tmp_path, gt, ["a"], strict=True)
    gt.write_text("gone.png x\n")
    with pytest.raises(DataError, match="not one image"):
        TextLabels.from_list(tmp_path, gt, ["a"])


def test_character_accuracy_is_by_the_longer_text() -> None:
    metric = TextMetric()
    for label, text in (("ab", "abcd"), ("abcd", "ab"), ("", ""), ("", "a"), ("abc", "abd")):
        metric.update(Sample("a", (Path("a"),), label), Text(text, 1.0, np.ones(len(text), np.float32)))
    found = metric.compute()
    assert found["character_accuracy"] == pytest.approx((0.5 + 0.5 + 1 + 0 + 2 / 3) / 5)
    assert found["Accuracy"] == pytest.approx(1 / 5)
