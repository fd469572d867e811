"""gen_trt_engine: ONNX file in; engine, prepared ONNX and manifest out."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nvidia_tao_deploy.actions.calibrate import QUANTIZED, is_shared
from nvidia_tao_deploy.actions.model import wanted_ranks
from nvidia_tao_deploy.actions.prepare import PARITY_BATCHES, Prepared, plugins_left, prepare
from nvidia_tao_deploy.actions.run import Run, action
from nvidia_tao_deploy.errors import BuildError, SpecError
from nvidia_tao_deploy.files import atomic_write, copy_beside, plain, write_bytes
from nvidia_tao_deploy.network import Network
from nvidia_tao_deploy.pipeline.gather import Given
from nvidia_tao_deploy.pipeline.progress import say
from nvidia_tao_deploy.pipeline.ranks import Team, current, joined

if TYPE_CHECKING:
    from nvidia_tao_deploy.engine.build import BuiltEngine
    from nvidia_tao_deploy.engine.options import BuildOptions
    from nvidia_tao_deploy.engine.profiles import Profile
    from nvidia_tao_deploy.spec.sections import NetworkSpec

MIB = 2**20


@action
def gen_trt_engine(run: Run) -> dict[str, Any]:
    """Build an engine; it stands at ``gen_trt_engine.trt_engine``, the prepared ONNX and the manifest beside it.

    Of several ranks, rank 0 builds and writes; the others calibrate on their share of the images, or leave at once.

    Returns:
        Paths (``engine``, ``prepared_onnx``, ``manifest``), ``precision`` and its ``counts``, the builder's name and
        version, ``engine_bytes`` and ``build_seconds``. {} on other ranks than rank 0.
    """
    from nvidia_tao_deploy.actions.shapes import check_shapes, choose_profiles
    from nvidia_tao_deploy.engine.backend import choose_runtime
    from nvidia_tao_deploy.engine.build import build
    from nvidia_tao_deploy.engine.manifest import Manifest, prepared_onnx_path
    from nvidia_tao_deploy.graph.verify import describe_precision, verify_precision

    network, spec, options = run.network, run.spec, run.spec.gen_trt_engine.tensorrt
    leads, shared = current().leads, is_shared(run.spec)
    if not leads and not shared:
        return {}
    onnx_path = Path(spec.require("gen_trt_engine.onnx_file"))
    engine_path = _engine_path(spec) if leads else Path()
    backend = choose_runtime(options.runtime)
    if options.calibration.max_metric_drop is not None and options.data_type in QUANTIZED:
        from nvidia_tao_deploy.actions.diagnose import keep_within

        options.layers_precision = keep_within(network, spec, run.folder)
    elif options.calibration.max_metric_drop is not None:
        say(f"note: calibration.max_metric_drop is for int8 and fp8 and does nothing in {options.data_type}")
    if 0 < options.workspace_size < 64:
        say(f"note: workspace_size is in MiB here: {options.workspace_size} MiB is very little (0: no limit is set)")
    say(f"Preparing {onnx_path} in {options.data_type} for {backend.title}")
    ranks = joined(wanted_ranks(spec, "gen_trt_engine"), run.job) if shared else nullcontext(Team())
    with ranks as team, suppress(Given):
        prepared = prepare(network, spec, backend, team)
        if not leads and team.link is not None:
            team.link.send(("done", None))  # there was nothing to calibrate
    if not leads:
        return {}
    for note in prepared.notes:
        say(f"note: {note}")
    implicit = options.data_type == "int8" and options.calibration.mode == "implicit"
    counts = verify_precision(prepared.model, "fp32" if implicit else options.data_type)
    say("int8 by TensorRT's own calibrator" if implicit else describe_precision(counts))
    parity = _parity(spec, prepared)
    profiles = choose_profiles(network, spec, prepared)
    check_shapes(prepared, profiles, onnx_path)
    onnx_beside = prepared_onnx_path(engine_path)
    with atomic_write(onnx_beside) as temporary:
        temporary.write_bytes(prepared.model.SerializeToString())
        build_options = _build_options(spec, prepared, profiles, weak=backend.features.typing == "weak")
        built = build(temporary, build_options, say, backend=backend, shown_as=onnx_path)
        verified = _verified(options.data_type, built, counts, implicit=implicit, where=onnx_path)
    write_bytes(engine_path, built.plan)
    manifest = Manifest.describe(
        built,
        profiles,
        source_onnx=onnx_path,
        prepared_onnx=onnx_beside,
        precision=options.data_type,
        calibration=prepared.calibration,
        transform=prepared.transform.describe(),
        labels=list(network.labels(spec)),
        classes=prepared.classes,
        spec=plain(spec.model_dump(exclude={"encryption_key"})),
        parity=parity,
        verified_precision=verified,
        network=network.name,
        command=_command(network, spec, onnx_path, engine_path),
    )
    manifest_file = manifest.save(engine_path)
    for sidecar in network.sidecars(onnx_path):
        copy_beside(sidecar, engine_path.parent)
    for label, path in (("Engine", engine_path), ("Prepared ONNX", onnx_beside), ("Manifest", manifest_file)):
        say(f"{label}: {path} ({path.stat().st_size / 1024:.0f} KiB)")
    return dict(
        plain(
            {
                "engine": engine_path,
                "prepared_onnx": onnx_beside,
                "manifest": manifest_file,
                "precision": options.data_type,
                "counts": counts,
                "runtime": backend.title,
                "engine_bytes": len(built.plan),
                "build_seconds": built.seconds,
                "parity": parity,
            }
        )
    )


def _command(network: Network, spec: NetworkSpec, onnx_path: Path, engine_path: Path) -> str:
    """The line that builds this engine again, whatever the spec held."""
    options = spec.gen_trt_engine.tensorrt
    words = [network.name, "gen_trt_engine", *(["-e", spec.source] if Path(spec.source).is_file() else [])]
    words += [f"gen_trt_engine.onnx_file={onnx_path}"]
    words += [f"gen_trt_engine.trt_engine={engine_path}", f"gen_trt_engine.tensorrt.data_type={options.data_type}"]
    return shlex.join(words)


def _engine_path(spec: NetworkSpec) -> Path:
    """The output path, checked before minutes are spent on a build.

    Raises:
        SpecError: no path, or one that is the model itself.
        BuildError: its folder cannot be written.
    """
    key = "gen_trt_engine.trt_engine"
    path = Path(spec.require(key))
    if path.suffix.lower() == ".onnx":
        raise SpecError(
            f"the engine would be written to an ONNX path: {path}",
            where=spec.where(key),
            remedy="Name the engine *.engine or *.plan; the prepared ONNX is written beside it.",
        )
    if path.is_dir():
        raise SpecError(f"{path} is a folder", where=spec.where(key), remedy="Name the engine file in it: *.engine.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = f"cannot make the folder {path.parent}: {error.strerror}"
        raise BuildError(what, where=spec.where(key), remedy="Choose another folder.") from error
    if not os.access(path.parent, os.W_OK):
        raise BuildError(f"cannot write into {path.parent}", where=spec.where(key), remedy="Choose another folder.")
    return path


def _verified(
    asked: str, built: BuiltEngine, counts: Mapping[str, int], *, implicit: bool, where: Path
) -> dict[str, Any]:
    """What the engine holds: read back where the builder can, else what stands in the graph it was built from.

    Raises:
        BuildError: the engine was read back, and nothing in it runs in the precision that was asked for.
    """
    from nvidia_tao_deploy.graph.verify import describe_precision

    held = {name: count for name, count in (built.layer_precisions or {}).items() if count and name != "other"}
    if not held:
        if not implicit:
            say(f"{describe_precision(counts)} (in the prepared graph; the engine does not tell)")
        return {"source": "prepared graph", **counts}
    found = {**held, "total": sum(held.values())}
    hidden = f"; {built.opaque_layers} compiled layers do not tell" if built.opaque_layers else ""
    say(f"In the engine: {describe_precision(found)}{hidden}")
    if asked != "fp32" and asked not in held and not built.opaque_layers:
        raise BuildError(
            f"{asked} was asked for, and the engine holds {describe_precision(found)}",
            where=str(where),
            remedy="This GPU has no kernels for these layers in that precision, or they were slower: ask for another "
            "data_type, or set strict_types.",
        )
    return {"source": "engine", **found, "compiled_layers": built.opaque_layers}


def _build_options(spec: Any, prepared: Prepared, profiles: Mapping[str, Profile], *, weak: bool) -> BuildOptions:
    from nvidia_tao_deploy.engine.options import BuildOptions, ImplicitCalibration

    section, options = spec.gen_trt_engine, spec.gen_trt_engine.tensorrt
    implicit = None
    layers = {}
    if options.data_type == "int8":
        # On a weakly typed builder the fp16 flag that goes with int8 would take these too.
        layers = dict.fromkeys(prepared.fp32_nodes(), "fp32") if weak else {}
    if options.data_type == "int8" and options.calibration.mode == "implicit":
        cache = options.calibration.cal_cache_file
        opt = options.opt_batch_size
        kind = "MinMaxCalibrator" if options.calibration.method == "minmax" else "EntropyCalibrator2"
        implicit = ImplicitCalibration(
            batches=(lambda: _full_batches(prepared, opt)) if prepared.images else None,
            cache_file=Path(cache) if cache else None,
            calibrator=f"IInt8{kind}",
        )
        layers |= dict(entry.rsplit(":", 1) for entry in options.layers_precision)
    return BuildOptions(
        precision=options.data_type,
        profiles=profiles,
        runtime=options.runtime,
        device=section.gpu_id,
        contexts=spec.runtime.contexts,
        workspace_bytes=options.workspace_size * MIB or None,
        timing_cache=Path(section.timing_cache) if section.timing_cache else None,
        compute_capabilities=tuple(_capability(text) for text in options.compute_capabilities),
        tf32=options.tf32,
        layer_precisions=layers,
        optimization_level=options.builder_optimization_level,
        max_aux_streams=options.max_aux_streams,
        version_compatible=options.version_compatible,
        hardware_compatibility=None if options.hardware_compatibility == "none" else options.hardware_compatibility,
        sparse_weights=options.sparse_weights,
        refit=options.refittable,
        weight_streaming=options.weight_streaming,
        dla_core=options.dla_core,
        strict_types=options.strict_types,
        implicit=implicit,
        verbose=section.verbose,
    )


def _full_batches(prepared: Prepared, size: int) -> Any:
    """Whole batches of the profile's opt size: TensorRT's calibrators read exactly that many images."""
    assert prepared.images is not None
    name = next(iter(prepared.ports.inputs.values())).name
    return (batch for batch in prepared.images.batches(size) if len(batch[name]) == size)


def _capability(text: str) -> tuple[int, int]:
    major, minor = text.split(".")
    return int(major), int(minor)


def _parity(spec: Any, prepared: Prepared) -> dict[str, Any] | None:
    """How far the prepared graph is from the source on calibration images; the spec's limits decide.

    Raises:
        BuildError: NaN where the source has none, or a limit of ``tensorrt.parity`` is passed.
    """
    if prepared.images is None or plugins_left(prepared.model):
        return None
    from nvidia_tao_deploy.graph.parity import compare
    from nvidia_tao_deploy.graph.runnable import runnable

    limits = spec.gen_trt_engine.tensorrt.parity
    batches = islice(prepared.images.batches(), PARITY_BATCHES)
    found = compare(runnable(prepared.source), runnable(prepared.model), batches)
    for name, output in found.outputs.items():
        same = "" if output.agreement_of == "cosine" else f", same {output.agreement_of} {100 * output.agreement:.1f} %"
        say(f"parity of '{name}': cosine {output.cosine:.6f}, largest difference {output.max_abs:.4g}{same}")
        problem = None
        if output.nan_count:
            problem = f"{output.nan_count} values are not finite"
        elif limits.max_abs is not None and output.max_abs > limits.max_abs:
            problem = f"largest difference {output.max_abs:.4g} is over max_abs {limits.max_abs}"
        elif limits.min_cosine is not None and output.cosine < limits.min_cosine:
            problem = f"cosine {output.cosine:.6f} is under min_cosine {limits.min_cosine}"
        if problem:
            raise BuildError(
                f"the prepared graph departs from the model at output '{name}': {problem}",
                where=spec.where("gen_trt_engine.tensorrt.parity"),
                remedy="Keep sensitive layers in fp32 with layers_precision, or calibrate on more images.",
            )
    return dict(plain({name: vars(output) for name, output in found.outputs.items()}))
