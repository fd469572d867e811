"""video_clip through the command line, on videos made here: frames, windows, queries, slices."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from actions.commands import Shell, status, write_spec
from PIL import Image
from replay_towers import STEP, WORDS, write_model, write_sidecars
from sklearn.metrics import ndcg_score, roc_auc_score

from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.data.video import VideoFrames, frame_window, spread
from nvidia_tao_deploy.errors import DataError
from nvidia_tao_deploy.multimodal.video_clip import sides
from nvidia_tao_deploy.multimodal.video_clip.gallery import ClipMetric
from nvidia_tao_deploy.multimodal.video_clip.spec import Spec
from nvidia_tao_deploy.predictions.embeddings import Embeddings
from nvidia_tao_deploy.transforms.video import VideoTransform

FPS = 10
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@pytest.fixture
def shell(capsys):
    return Shell(capsys)


def write_video(path: Path, levels: list[int], size: tuple[int, int] = (48, 32)) -> Path:
    """A frame of one grey level each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), FPS, size)
    assert video.isOpened()
    for level in levels:
        video.write(np.full((size[1], size[0], 3), level, np.uint8))
    video.release()
    return path


def tone(frame: np.ndarray) -> int:
    return round(float(frame.mean()))


@pytest.fixture(scope="module")
def ramp(tmp_path_factory):
    """40 frames, frame n of level 5 n."""
    return write_video(tmp_path_factory.mktemp("video") / "ramp.avi", [5 * n for n in range(40)])


@pytest.mark.parametrize(
    ("window", "count", "numbers"),
    [
        ({}, 4, [0, 13, 26, 39]),
        ({"start_frame": 10, "end_frame": 14}, 4, [10, 11, 12, 13]),
        ({"start_frame": 10, "end_frame": 12}, 4, [10, 11, 11, 11]),
        ({"start_frame": 35, "end_frame": 400}, 3, [35, 37, 39]),
        ({"start_time_sec": 1.0, "end_time_sec": 2.04}, 3, [10, 14, 19]),
        ({"start_frame": None, "end_frame": 3, "start_time_sec": 3.0, "end_time_sec": 9}, 2, [30, 39]),
        ({"start_frame": -5, "end_frame": 1}, 2, [0, 0]),
    ],
)
def test_frames_are_those_of_the_window(ramp, window, count, numbers):
    frames, found = VideoFrames()(ramp, count, window)
    assert found == numbers
    assert [tone(frames[n]) for n in numbers] == pytest.approx([5 * n for n in numbers], abs=2)


def test_chunks_of_one_file_are_read_in_any_order(ramp):
    read = VideoFrames()
    for start in (0, 4, 7, 36, 8, 36, 35, 0):
        frames, numbers = read(ramp, 4, {"start_frame": start, "end_frame": start + 4})
        assert [tone(frames[n]) for n in numbers] == pytest.approx([5 * n for n in numbers], abs=2)


@pytest.mark.parametrize("stated", [0, 25, 60])
def test_a_wrong_frame_count_in_the_container_does_not_matter(ramp, stated, monkeypatch):
    class Liar:
        def __init__(self, name):
            self._video = REAL(name)

        def get(self, what):
            return stated if what == cv2.CAP_PROP_FRAME_COUNT else self._video.get(what)

        def __getattr__(self, name):
            return getattr(self._video, name)

    REAL = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", Liar)
    read = VideoFrames()
    for _ in range(2):
        frames, numbers = read(ramp, 4, {})
        assert numbers == [0, 13, 26, 39]
        assert [tone(frames[n]) for n in numbers] == pytest.approx([0, 65, 130, 195], abs=2)


def test_an_empty_window_and_a_broken_file_are_refused(ramp, tmp_path):
    with pytest.raises(DataError, match="no part of the video"):
        VideoFrames()(ramp, 4, {"start_frame": 9, "end_frame": 9})
    (tmp_path / "x.mp4").write_bytes(b"nothing" * 100)
    with pytest.raises(DataError, match="cannot decode"):
        VideoFrames()(tmp_path / "x.mp4", 4, {})
    with pytest.raises(DataError, match="no such video"):
        VideoFrames()(tmp_path / "y.mp4", 4, {})


def test_numbers_against_the_contract_in_plain_words():
    for available in range(1, 40):
        for count in (1, 4, 8):
            if available >= count:
                wanted = np.trunc(np.linspace(0, available - 1, count)).tolist()
            else:
                wanted = [*range(available), *[available - 1] * (count - available)]
            assert spread(available, count) == wanted
    assert frame_window(100, 29.97, {"start_time_sec": 1.0, "end_time_sec": 99}, Path()) == (30, 100)


def test_frames_are_rgb_bicubic_and_normalized(tmp_path):
    rng = np.random.default_rng(1)
    frame = np.kron(rng.integers(0, 255, (4, 6, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    video = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter_fourcc(*"MJPG"), FPS, (48, 32))
    video.write(frame)
    video.release()
    out = {"video": np.zeros((2, 3, 16, 16), np.float32)}
    VideoTransform("video")(Sample("v", (tmp_path / "v.avi",)), out)
    reader = cv2.VideoCapture(str(tmp_path / "v.avi"))
    rgb = reader.read()[1][..., ::-1]
    pixels = np.asarray(Image.fromarray(np.ascontiguousarray(rgb)).resize((16, 16), Image.Resampling.BICUBIC))
    np.testing.assert_allclose(out["video"][1], ((pixels / 255 - MEAN) / STD).transpose(2, 0, 1), atol=1e-5)


# -- commands


@pytest.fixture
def spec(tmp_path):
    """Two videos: one of levels 0 to 4, a second each, in chunks; one of level 6. Queries by slice."""
    root = tmp_path / "videos"
    write_video(root / "a.avi", [k * STEP for k in range(5) for _ in range(FPS)])
    write_video(root / "sub" / "b.avi", [6 * STEP] * 3)
    table = np.eye(10, 12) + 0.2 * np.random.default_rng(3).random((10, 12))
    # the three channels' constants, on grey
    model = write_model(
        tmp_path / "export" / "replay.onnx", table, mean=float(MEAN.mean()), std=float(1 / (1 / STD).mean()),
        shape=(4, 3, 8, 8),
    )  # fmt: skip
    write_sidecars(tmp_path / "export")
    chunks = [{"chunk_index": k, "start_time_sec": k, "end_time_sec": k + 1} for k in range(5)]
    metadata = [
        {"dataset": "set", "video_id": "a", "video_path": "/store/a.avi", "chunks": chunks},
        {"dataset": "set", "video_id": "b", "video_path": "sub/b.avi", "chunks": [{}]},
    ]
    gallery = [{"chunk_id": f"set/a#{k}"} for k in (3, 1, 0, 2, 4)] + [{"chunk_id": "set/b#0"}]
    queries = [{"query": WORDS[k], "relevant_clip_ids": [f"set/a#{k}"], "slice": "easy"} for k in range(4)]
    queries[0]["relevant_clip_ids"] = "set/a#0"  # one text is one clip, not its letters
    queries += [
        {"query": "six", "relevant_clip_ids": ["set/b#0", "set/a#4", "gone/x#0"], "slice": "overall"},
        {"query": "five", "relevant_clip_ids": ["gone/x#0"]},
    ]
    (tmp_path / "queries.json").write_text(json.dumps({"gallery": gallery, "queries": queries}))
    (tmp_path / "metadata.json").write_text(json.dumps({"data": metadata}))
    (tmp_path / "words.txt").write_text("three\none\n")
    val = {"gt_queries": str(tmp_path / "queries.json"), "metadata": str(tmp_path / "metadata.json")}
    return {
        "results_dir": str(tmp_path / "out"),
        "dataset": {"val": {**val, "video_root": str(root), "path_prefix_mapping": {"/store": str(root)}}},
        "gen_trt_engine": {"onnx_file": str(model), "trt_engine": str(tmp_path / "built" / "replay.engine")},
        "evaluate": {"trt_engine": str(model), "batch_size": 4},
        "inference": {"trt_engine": str(model), "batch_size": 4, "text_file": str(tmp_path / "words.txt")},
    }


def test_queries_find_their_clips(tmp_path, shell, spec):
    assert shell("video_clip", "evaluate", "-e", write_spec(tmp_path / "s.yaml", spec)) == 0, shell.err
    found = json.loads((tmp_path / "out" / "trt_evaluate" / "results.json").read_text())
    assert list(found)[:4] == ["overall", "all", "easy", "overall (slice)"]
    kpi = {key: found["overall"][key] for key in ("mAP", "recall@1", "recall@5")}
    assert status(tmp_path / "out" / "trt_evaluate")[-1]["kpi"] == kpi
    easy = found["easy"]
    assert (easy["mAP"], easy["recall@1"], easy["auc"], easy["num_queries"], easy["gallery_size"]) == (1, 1, 1, 4, 6)
    # "six" finds b first; a#4 is as far off as any, and its other relevant clip is not in the gallery
    slice_ = found["overall (slice)"]
    assert (slice_["hit@1"], slice_["recall@1"], slice_["median_rank"]) == (1, 0.5, 1)
    assert found["overall"]["num_queries"] == 5
    assert found["overall"]["mAP"] == pytest.approx((4 + slice_["mAP"]) / 5) == found["mAP"]
    assert found["all"] == {"mAP": 0, "median_rank": 0, "mean_rank": 0, "auc": 0, "num_queries": 0, "gallery_size": 6}
    assert "1 relevant clips are not in the gallery: gone/x#0" in shell.out
    assert "1 query has no relevant clip and does not count: five" in shell.out


def test_inference_writes_clips_and_texts(tmp_path, shell, spec):
    file = write_spec(tmp_path / "s.yaml", spec)
    assert shell("video_clip", "inference", "-e", file) == 0, shell.err
    with h5py.File(tmp_path / "out" / "trt_inference" / "video_embeddings.h5") as file_:
        assert [name.decode() for name in file_["chunk_ids"]] == [f"set/a#{k}" for k in (3, 1, 0, 2, 4)] + ["set/b#0"]
        assert file_["embeddings"][()].argmax(axis=1).tolist() == [3, 1, 0, 2, 4, 6]
        assert dict(file_.attrs) == {"num_videos": 6, "embedding_dim": 12, "embedding_type": "video"}
    assert "three,1,set/a#3,1.0000" in (tmp_path / "out" / "trt_inference" / "text_to_video.csv").read_text()


def test_texts_alone_need_no_gallery(tmp_path, shell, spec):
    """Missing keys and ??? count as unset; an empty prefix mapping is the default."""
    spec["dataset"]["val"] = {"gt_queries": "???"}
    assert shell("video_clip", "inference", "-e", write_spec(tmp_path / "s.yaml", spec)) == 0, shell.err
    assert [path.name for path in (tmp_path / "out" / "trt_inference").glob("*.h5")] == ["text_embeddings.h5"]
    spec["inference"]["text_file"] = None
    assert "nothing to embed" in shell.refused(
        2, "video_clip", "inference", "-e", write_spec(tmp_path / "t.yaml", spec)
    )


def test_an_unreadable_clip_is_skipped_and_named(tmp_path, shell, spec):
    (tmp_path / "videos" / "sub" / "b.avi").write_bytes(b"broken")
    file = write_spec(tmp_path / "s.yaml", spec)
    assert shell("video_clip", "evaluate", "-e", file) == 0, shell.err
    found = json.loads((tmp_path / "out" / "trt_evaluate" / "results.json").read_text())
    assert (found["overall"]["gallery_size"], found["images_skipped"]) == (5, 1)
    assert "sub/b.avi" in shell.out
    assert shell("video_clip", "evaluate", "-e", file, "strict=true") == 1


def test_bad_files_are_refused(tmp_path, shell, spec):
    file = write_spec(tmp_path / "s.yaml", spec)
    metadata = tmp_path / "metadata.json"
    metadata.write_text('{"data": [{"dataset": "set", "video_id": "a", "video_path": "x", "chunks": [{}]}]}')
    error = shell.refused(1, "video_clip", "evaluate", "-e", file)
    assert "5 clips are not in the metadata: set/a#3, set/a#1, set/a#2 and 2 more" in error
    metadata.write_text('[{"dataset": "s", "video_id": "a", "video_path": "x", "chunks": [{"start_frame": "one"}]}]')
    assert "could not convert string to float: 'one'" in shell.refused(1, "video_clip", "evaluate", "-e", file)
    metadata.write_text(
        '[{"dataset": "s", "video_id": "a", "video_path": "x", "chunks": [{"end_time_sec": Infinity}]}]'
    )
    assert "inf is no time or frame" in shell.refused(1, "video_clip", "evaluate", "-e", file)
    metadata.write_text('{"rows": []}')
    assert "not a list of videos" in shell.refused(1, "video_clip", "evaluate", "-e", file)
    spec["dataset"]["val"]["video_rot"] = "x"
    assert "video_rot" in shell.refused(2, "video_clip", "evaluate", "-e", write_spec(tmp_path / "s.yaml", spec))


def test_a_gallery_without_queries_is_refused(tmp_path, shell, spec):
    file = write_spec(tmp_path / "s.yaml", spec)
    queries = json.loads((tmp_path / "queries.json").read_text())
    (tmp_path / "queries.json").write_text(json.dumps({**queries, "queries": []}))
    assert "no query has a relevant clip" in shell.refused(1, "video_clip", "evaluate", "-e", file)
    assert not (tmp_path / "out" / "trt_evaluate" / "results.json").exists()
    (tmp_path / "queries.json").write_text('{"gallery": []}')
    assert "not a gallery with queries: KeyError('queries')" in shell.refused(1, "video_clip", "evaluate", "-e", file)


def test_engine_in_fp16_keeps_the_norms(tmp_path, shell, spec):
    file = write_spec(tmp_path / "s.yaml", spec)
    words = ("gen_trt_engine.tensorrt.data_type=fp16", "gen_trt_engine.tensorrt.strongly_typed=false")
    assert shell("video_clip", "gen_trt_engine", "-e", file, *words) == 0, shell.err
    built = tmp_path / "built" / "replay.engine.onnx"
    assert shell("video_clip", "evaluate", "-e", file, f"evaluate.trt_engine={built}") == 0, shell.err
    from nvidia_tao_deploy.multimodal.video_clip.spec import TensorRT

    assert "/model/vision_encoder/blocks.*/norm1/*/Pow:fp32" in TensorRT(data_type="fp16").layers_precision


def test_figures_against_scikit_learn():
    rng = np.random.default_rng(5)
    clips, texts = rng.normal(size=(30, 7)), rng.normal(size=(12, 7))
    clips[20:] = clips[:10]  # equal clips tie
    metric = ClipMetric()
    for i, row in enumerate(clips):
        metric.update(Sample(f"c{i}", (Path("v"),)), Embeddings(row, None))
    relevant = [{f"c{i}" for i in rng.choice(30, rng.integers(1, 5), replace=False)} for _ in texts]
    for wanted, row in zip(relevant, texts, strict=True):
        metric.update(Sample("q", (Path("v"),), wanted, {"text": "t", "slice": "all"}), Embeddings(None, row))
    found = metric.compute()["overall"]
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (texts, clips)]
    similar = np.round(unit[0] @ unit[1].T, 6)
    truth = np.array([[f"c{i}" in wanted for i in range(30)] for wanted in relevant])
    assert found["auc"] == pytest.approx(np.mean([roc_auc_score(t, s) for t, s in zip(truth, similar, strict=True)]))
    ranked = np.take_along_axis(truth, np.argsort(-similar, axis=1, kind="stable"), axis=1)
    precision = np.cumsum(ranked, axis=1) / np.arange(1, 31)
    assert found["mAP"] == pytest.approx(np.mean([p[r].mean() for p, r in zip(precision, ranked, strict=True)]))
    ranks = ranked.argmax(axis=1) + 1
    assert found["mean_rank"] == pytest.approx(ranks.mean())
    assert found["median_rank"] == np.median(ranks) != ranks.mean()
    for k in (1, 5, 10):
        assert found[f"recall@{k}"] == pytest.approx((ranked[:, :k].sum(1) / ranked.sum(1)).mean())
        assert found[f"hit@{k}"] == pytest.approx(ranked[:, :k].any(1).mean())
        assert found[f"ndcg@{k}"] == pytest.approx(
            np.mean([ndcg_score([row], [np.arange(30, 0, -1)], k=k) for row in ranked.astype(float)])
        )


def test_evaluate_needs_both_towers_whatever_inference_asks_for():
    spec = Spec.model_validate({"dataset": {"val": {"gt_queries": "q", "metadata": "m"}}})
    assert set(sides(spec, "evaluate")) == {"image_embedding", "text_embedding"}
    assert list(sides(spec, "inference")) == ["image_embedding"]
    spec = Spec.model_validate({"dataset": {"val": {"gt_queries": "q"}}, "inference": {"text_file": "t"}})
    assert list(sides(spec, "inference")) == ["text_embedding"]  # half a gallery is none
