"""Where the INT8/FP8 scales of a build come from: QAT scales, a fitting calibration cache, a tensorfile, images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.errors import BuildError, DataError, SpecError
from nvidia_tao_deploy.network import Network, Ports
from nvidia_tao_deploy.pipeline.gather import pooled
from nvidia_tao_deploy.pipeline.progress import say
from nvidia_tao_deploy.pipeline.ranks import Team
from nvidia_tao_deploy.pipeline.stream import calibration_batches
from nvidia_tao_deploy.pipeline.workers import worker_count
from nvidia_tao_deploy.transforms.transform import Transform

if TYPE_CHECKING:
    from onnx import ModelProto

    from nvidia_tao_deploy.actions.prepare import Prepared
    from nvidia_tao_deploy.calibration.cache import ScaleMatch
    from nvidia_tao_deploy.calibration.provenance import CacheKey

KEY = "gen_trt_engine.tensorrt.calibration"
QUANTIZED = ("int8", "fp8")


class CalibrationImages:
    """The images the spec names for calibration, through the evaluate transform, in a fixed seeded order."""

    def __init__(self, network: Network, spec: Any, transform: Transform, ports: Ports, limit: int | None) -> None:
        """Choose them: ``limit`` at most (checks need a few only); None: ``cal_batches`` x ``cal_batch_size``.

        Raises:
            DataError: no image, or fewer than asked for.
        """
        from nvidia_tao_deploy.calibration.select import choose

        options = spec.gen_trt_engine.tensorrt.calibration
        dataset = network.calibration(spec)
        # By all its files: pairs may share one of them (a golden image, the photo before a change).
        samples = {"\n".join(map(str, item.paths)): item for item in (dataset[i] for i in range(len(dataset)))}
        self.available = len(samples)
        count = min(limit, len(samples)) if limit else options.cal_batches * options.cal_batch_size
        self.samples: list[Sample] = [samples[path] for path in choose(list(samples), count, options.seed)]
        self.batch_size: int = options.cal_batch_size
        self.team = Team()  # ranks that share the calibration
        self.whole = False  # a model with a fixed batch takes no short one
        self._transform, self._inputs, self._strict = transform, tuple(ports.inputs.values()), spec.strict

    def batches(self, batch_size: int | None = None, team: Team | None = None) -> Iterator[dict[str, NDArray[Any]]]:
        """Batches of model inputs by tensor name, read anew at every call; of several ranks, this one's share.

        Where only ``whole`` batches will do, a short one is filled up with its own images again.

        Raises:
            DataError: not one of the images can be read.
        """
        found = False
        size = batch_size or self.batch_size
        share = (team or Team()).share(ceil(len(self.samples) / size))
        samples = [sample for first in share for sample in self.samples[first * size : (first + 1) * size]]
        for batch in calibration_batches(samples, self._transform, self._inputs, size, strict=self._strict):
            found = True
            yield {name: _filled(array, size) for name, array in batch.items()} if self.whole else batch
        if not found and len(samples) == len(self.samples):
            raise DataError("not one calibration image can be read", where=str(self.samples[0].path))


def _filled(rows: NDArray[Any], size: int) -> NDArray[Any]:
    return rows if len(rows) == size else np.resize(rows, (size, *rows.shape[1:]))


Scales = tuple[dict[str, float], dict[str, Any]]  # by tensor, and where they came from (for the manifest)


def find_scales(
    spec: Any, prepared: Prepared, model: ModelProto, tensors: Sequence[str], builder_version: tuple[int, int, int]
) -> Scales:
    """The scales of ``tensors``, from the first source that the spec names and that fits.

    ``model`` is the float graph that will be quantized; ``builder_version`` goes into the header of a cache that is
    written. Of several ranks, each reads its share of the images.

    Raises:
        Given: this is not rank 0, and its part of the calibration is done.
        BuildError: a source names none of the graph's tensors, or a cache does not fit and nothing else is there.
        SpecError: no source is named.
        DataError: a source is missing or broken.
    """
    from nvidia_tao_deploy.calibration.cache import ENTROPY, write_cache
    from nvidia_tao_deploy.calibration.provenance import write_key
    from nvidia_tao_deploy.graph.quantize import QUANTIZED_MAX

    options = spec.gen_trt_engine.tensorrt.calibration
    if _has_qat_scales(spec):
        return _from_qat(spec, model, tensors, builder_version)
    cache = Path(options.cal_cache_file) if options.cal_cache_file else None
    images = prepared.images
    key = _key(spec, prepared.transform, images, tensors) if cache else None
    if cache and key and cache.is_file():
        found = _from_cache(cache, key, spec, model, tensors, images)
        if found:
            return found
    largest, facts = _calibrate(spec, model, tensors, prepared.ports, images)
    if cache and key:
        # A cache holds int8 scales whatever is built from it: TensorRT has no other kind.
        table = {name: amax / QUANTIZED_MAX["int8"] for name, amax in largest.items() if amax > 0}
        algorithm = "MinMaxCalibration" if options.method == "minmax" else ENTROPY
        write_cache(cache, table, version=builder_version, algorithm=algorithm)
        write_key(cache, key)
        say(f"Calibration cache: {cache}")
    precision = spec.gen_trt_engine.tensorrt.data_type
    return {name: amax / QUANTIZED_MAX[precision] for name, amax in largest.items()}, facts


def _for_precision(spec: Any, int8_scales: Mapping[str, float]) -> dict[str, float]:
    """Scales of a table in TensorRT's form (amax / 127) for the type that is built."""
    from nvidia_tao_deploy.graph.quantize import QUANTIZED_MAX

    factor = QUANTIZED_MAX["int8"] / QUANTIZED_MAX[spec.gen_trt_engine.tensorrt.data_type]
    return {name: scale * factor for name, scale in int8_scales.items()}


def _has_qat_scales(spec: Any) -> bool:
    options, training = spec.gen_trt_engine.tensorrt.calibration, getattr(spec, "training_config", None)
    trained = options.cal_json_file or options.qat or getattr(training, "enable_qat", False)
    return bool(trained and not options.force_ptq)


def is_shared(spec: Any) -> bool:
    """Whether several ranks share the calibration images of this build; else rank 0 builds without the others."""
    options = spec.gen_trt_engine.tensorrt
    calibration = options.calibration
    ours = calibration.mode == "explicit" and calibration.quantizer == "builtin"
    elsewhere = calibration.cal_data_file or calibration.max_metric_drop is not None or _has_qat_scales(spec)
    return options.data_type in QUANTIZED and ours and not elsewhere


def _from_qat(spec: Any, model: ModelProto, tensors: Sequence[str], version: tuple[int, int, int]) -> Scales:
    from nvidia_tao_deploy.calibration.cache import read_qat_scales, scales_from_qat, write_cache

    path = Path(spec.require(f"{KEY}.cal_json_file"))
    table = read_qat_scales(path)
    match = scales_from_qat(model, table, tensors)
    _report(path, match)
    cache = spec.gen_trt_engine.tensorrt.calibration.cal_cache_file
    if cache:
        if Path(cache).exists():
            raise SpecError(
                f"{cache} exists and would be replaced by the scales of {path}",
                where=spec.where(f"{KEY}.cal_cache_file"),
                remedy="Name a new file, or leave cal_cache_file out.",
            )
        write_cache(Path(cache), table, version=version)
    return _for_precision(spec, match.scales), {"source": "qat", "file": str(path), "report": match.report()}


def _from_cache(
    cache: Path, key: CacheKey, spec: Any, model: ModelProto, tensors: Sequence[str], images: CalibrationImages | None
) -> Scales | None:
    """Scales of an existing cache; None where it does not fit and the images to calibrate anew are there."""
    from nvidia_tao_deploy.calibration.cache import match_scales, read_cache
    from nvidia_tao_deploy.calibration.provenance import explain_mismatch, read_key

    written_with = read_key(cache)
    data_file = spec.gen_trt_engine.tensorrt.calibration.cal_data_file
    changed = explain_mismatch(written_with, key) if written_with else ""
    if changed and (images or data_file):
        say(f"note: {cache} does not fit, calibrating anew: {changed}")
        return None
    if changed:
        raise BuildError(
            f"the calibration cache does not fit: {changed}",
            where=str(cache),
            remedy=f"Set {KEY}.cal_image_dir to calibrate anew, or name the cache of this model.",
        )
    content = read_cache(cache)
    for warning in content.warnings:
        say(f"note: {cache}: {warning}")
    if not written_with:
        say(f"note: {cache} has no record of its origin; it is taken to belong to this model")
    match = match_scales(model, content.scales, tensors)
    if match.unmatched and written_with and written_with.tensors != key.tensors and (images or data_file):
        say(f"note: {cache} lacks {len(match.unmatched)} of the tensors to quantize now, calibrating anew")
        return None
    _report(cache, match)
    facts = {"source": "cache", "file": str(cache), "algorithm": content.algorithm, "report": match.report()}
    return _for_precision(spec, match.scales), {**facts, "unmatched": list(match.unmatched)}


def _report(path: Path, match: ScaleMatch) -> None:
    say(f"{path}: {match.report()}")
    if not match.scales:
        raise BuildError(
            "none of its tensor names is in the model, so it was made for another file",
            where=str(path),
            remedy="Names change when a model is exported anew or simplified: calibrate on images instead.",
        )


def _key(spec: Any, transform: Transform, images: CalibrationImages | None, tensors: Sequence[str]) -> CacheKey:
    from nvidia_tao_deploy.calibration.provenance import CacheKey, hash_file, hash_images, hash_names, read_key

    options = spec.gen_trt_engine.tensorrt.calibration
    if images is not None:
        data = hash_images(path for sample in images.samples for path in sample.paths)
    else:  # nothing to compare with: the cache's own word stands
        written_with = read_key(Path(options.cal_cache_file))
        data = written_with.images if written_with else ""
    described = json.dumps(transform.describe(), sort_keys=True)
    method = f"{options.method} {options.percentile}" if options.method == "percentile" else options.method
    return CacheKey(
        model=hash_file(Path(spec.gen_trt_engine.onnx_file)),
        transform=hashlib.sha256(described.encode()).hexdigest(),
        images=data,
        method=method,
        tensors=hash_names(tensors),
    )


def _calibrate(
    spec: Any, model: ModelProto, tensors: Sequence[str], ports: Ports, images: CalibrationImages | None
) -> tuple[dict[str, float], dict[str, Any]]:
    from nvidia_tao_deploy.calibration.ranges import amaxes, observe
    from nvidia_tao_deploy.calibration.tensorfile import write_tensorfile

    options = spec.gen_trt_engine.tensorrt.calibration
    data_file = Path(options.cal_data_file) if options.cal_data_file else None
    names = [info.name for info in ports.inputs.values()]
    if data_file and not data_file.is_file() and images is not None:
        # One input: bare arrays, as the established files have them; several: a record of named arrays.
        count = write_tensorfile(data_file, (b[names[0]] if len(names) == 1 else b for b in images.batches()))
        say(f"Tensorfile: {data_file} ({count} batches)")
    if data_file:
        batches, source = _tensorfile(data_file, names), f"{data_file}"
    elif images is not None:
        batches, source = images.batches(team=images.team), f"{len(images.samples)} images of {images.available}"
    else:
        spec.require(f"{KEY}.cal_image_dir")
        raise AssertionError("require() raises for an empty list")
    team = images.team if images else Team()
    say(f"Calibrating {len(tensors)} tensors on {source} ({options.method})")
    threads = max(1, worker_count(0) // team.here) if team.count > 1 else 0
    observed = pooled(
        team, lambda look: observe(model, batches, tensors, options.method, threads=threads, progress=look)
    )
    largest = amaxes(observed, options.method, options.percentile)
    facts = calibration_facts(spec, images, options.method)
    if data_file:
        facts["data_file"] = str(data_file)
    return largest, facts


def _tensorfile(path: Path, names: Sequence[str]) -> Iterator[dict[str, NDArray[Any]]]:
    from nvidia_tao_deploy.calibration.tensorfile import read_tensorfile

    for record in read_tensorfile(path):
        if isinstance(record, Mapping):
            yield {name: record[name] for name in names}
        elif len(names) == 1:
            yield {names[0]: record}
        else:
            raise DataError(
                f"a record holds one array and the model has the inputs {', '.join(names)}", where=str(path)
            )


def calibration_facts(spec: Any, images: CalibrationImages | None, method: str) -> dict[str, Any]:
    """What the manifest says of a calibration on images."""
    options = spec.gen_trt_engine.tensorrt.calibration
    return {
        "source": "images",
        "mode": options.mode,
        "method": method,
        "seed": options.seed,
        "batch_size": options.cal_batch_size,
        "images": [str(sample.path) for sample in images.samples] if images else [],
    }
