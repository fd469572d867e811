"""Profiles of dynamic heights and widths: from the spec, from the dataset's images, or a message what to set."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from onnx import TensorProto, helper
from PIL import Image

from nvidia_tao_deploy.actions.shapes import check_shapes, choose_profiles
from nvidia_tao_deploy.engine.profiles import Profile
from nvidia_tao_deploy.errors import BuildError, DataError, SpecError


def model(shape: list[Any]) -> Any:
    node = helper.make_node("Relu", ["x"], ["y"], name="relu")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y")]
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def prepared(shape: list[Any], images: list[Path] | None = None) -> Any:
    samples = None if images is None else SimpleNamespace(samples=[SimpleNamespace(path=path) for path in images])
    return SimpleNamespace(model=model(shape), images=samples, ports=None)


def spec(**keys: int) -> Any:
    batch = SimpleNamespace(min_batch_size=1, opt_batch_size=2, max_batch_size=4)
    section = SimpleNamespace(tensorrt=batch, **keys)
    return SimpleNamespace(gen_trt_engine=section, where=lambda key: f"spec.yaml: {key}")


def no_dataset(spec: Any, action: str) -> Any:
    raise DataError("no dataset")


NETWORK: Any = SimpleNamespace(dataset=no_dataset, stride=lambda _ports: 32)
PATCHES: Any = SimpleNamespace(dataset=no_dataset, stride=lambda _ports: 14)
SIZES = {f"{which}_{side}": size for side, base in (("height", 64), ("width", 128)) for which, size in
         (("min", base), ("opt", 2 * base), ("max", 3 * base))}  # fmt: skip


def test_heights_and_widths_of_the_spec() -> None:
    found = choose_profiles(NETWORK, spec(**SIZES), prepared(["b", 3, "h", "w"]))
    assert found["x"] == Profile((1, 3, 64, 128), (2, 3, 128, 256), (4, 3, 192, 384))


def test_a_fixed_size_needs_nothing() -> None:
    assert choose_profiles(NETWORK, spec(), prepared([1, 3, 32, 48]))["x"].max == (1, 3, 32, 48)


def test_half_a_profile_is_refused() -> None:
    some = {name: size for name, size in SIZES.items() if name != "opt_width"}
    with pytest.raises(SpecError, match="width is dynamic and opt_width is not set"):
        choose_profiles(NETWORK, spec(**some), prepared(["b", 3, "h", "w"]))


def test_open_sizes_are_proposed_from_the_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = []
    for i, size in enumerate([(100, 70), (200, 130), (210, 120), (330, 200)]):
        paths.append(tmp_path / f"{i}.png")
        Image.new("RGB", size).save(paths[-1])
    (tmp_path / "broken.png").write_text("no image")
    found = choose_profiles(NETWORK, spec(), prepared(["b", 3, "h", "w"], [*paths, tmp_path / "broken.png"]))
    assert found["x"] == Profile((1, 3, 64, 96), (2, 3, 128, 192), (4, 3, 224, 352))
    said = capsys.readouterr()
    assert "proposed from the dataset's image sizes" in said.out + said.err
    assert choose_profiles(PATCHES, spec(), prepared(["b", 3, "h", "w"], paths))["x"].opt == (2, 3, 126, 196)


def test_without_images_the_message_says_what_to_set() -> None:
    with pytest.raises(BuildError, match="axis 2 is dynamic") as raised:
        choose_profiles(NETWORK, spec(), prepared(["b", 3, "h", 64]))
    assert "min_height" in str(raised.value)


def test_shapes_are_tried_only_where_they_differ_and_are_quick(capsys: pytest.CaptureFixture[str]) -> None:
    ready = prepared(["b", 3, "h", 64])
    check_shapes(ready, {"x": Profile((1, 3, 8, 64), (1, 3, 8, 64), (2, 3, 16, 64))}, Path("m.onnx"))
    with pytest.raises(BuildError, match="cannot run at the max shapes"):
        check_shapes(ready, {"x": Profile((1, 3, 8, 64), (1, 3, 8, 64), (2, 3, 16, 65))}, Path("m.onnx"))
    huge = (4096, 3, 64, 64)
    check_shapes(ready, {"x": Profile((1, 3, 8, 64), (1, 3, 8, 64), huge)}, Path("m.onnx"))
    said = capsys.readouterr()
    assert "not tried" in said.out + said.err
