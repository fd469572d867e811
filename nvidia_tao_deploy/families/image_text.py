"""Models with a picture tower and a text tower, in one engine or two: clip, video_clip."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from nvidia_tao_deploy.arrays import Array
from nvidia_tao_deploy.data.captions import Joined, text_file
from nvidia_tao_deploy.data.sample import Dataset, Listed
from nvidia_tao_deploy.data.text import counted, read_text, some
from nvidia_tao_deploy.errors import DataError, ModelError, SpecError
from nvidia_tao_deploy.families.image_text_spec import ImageTextSpec
from nvidia_tao_deploy.network import Binder, Decoder, Network, Port, Ports, expect
from nvidia_tao_deploy.predictions.embeddings import Embeddings, unit_rows
from nvidia_tao_deploy.runtime.session import Session, TensorInfo
from nvidia_tao_deploy.runtime.towers import TowerSession, tower_files
from nvidia_tao_deploy.transforms.tokenizer import FixedLength, canonical
from nvidia_tao_deploy.transforms.towers import Encoder, TowerTransform
from nvidia_tao_deploy.transforms.transform import Geometry, Transform

VISUAL, TEXT = "image_embedding", "text_embedding"
CONFIG, TOKENIZER = "_config.yaml", "_tokenizer"
LOOKED_AT = 64  # tokens of a text in which something known must be
TOWER_OF = {VISUAL: "vision", TEXT: "text"}

Sides = Callable[[Any, str], Collection[str]]


def sides_of(has_pictures: Callable[[Any], Any]) -> Sides:
    """The embeddings that an action needs: evaluate both, inference those of what the spec has."""

    def sides(spec: Any, action: str) -> Sequence[str]:
        asked = {VISUAL: has_pictures(spec), TEXT: spec.inference.text_file}
        return [side for side, wanted in asked.items() if wanted or action == "evaluate"]

    return sides


def binder(visual: Port) -> Binder:
    """Inputs: ``visual``, the token ids, the attention mask; outputs: both embeddings. A tower alone has its own."""

    def bind(inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> Ports:
        pictures, texts = ([i for i in inputs if (len(i.shape) > 2) == wanted] for wanted in (True, False))
        text_ports = (Port("input_ids", rank=2), Port("attention_mask", rank=2))[: max(1, len(texts))]
        roles = [VISUAL] * bool(pictures or not texts) + [TEXT] * bool(texts or not pictures)
        asked = [visual] * (VISUAL in roles) + list(text_ports) * (TEXT in roles)
        named = [output for output in outputs if output.name in roles]  # logit_scale and logit_bias are not used
        return expect(asked, [Port(role, rank=2) for role in roles])([*pictures, *texts], named)

    return bind


def opener(sides: Sides) -> Callable[[ImageTextSpec, str, Callable[[Path], Session]], Session]:
    """Opens the engine, or those of two engines that ``sides`` (embeddings by output name) asks for."""

    def open_(spec: ImageTextSpec, action: str, opened: Callable[[Path], Session]) -> Session:
        files = tower_files(Path(spec.require(f"{action}.trt_engine")))
        if "combined" in files:
            return opened(files["combined"])
        towers = [TOWER_OF[side] for side in (VISUAL, TEXT) if side in sides(spec, action)]
        for tower in towers:
            if tower not in files:
                raise ModelError(
                    f"{action} needs a {tower} engine, and there is only {', '.join(map(str, files.values()))}",
                    where=spec.where(f"{action}.trt_engine"),
                    remedy=f"Build it beside the other one, its name ending in _{tower}.",
                )
        sessions: list[Session] = []
        try:
            sessions += (opened(files[tower]) for tower in towers)
            return sessions[0] if len(sessions) == 1 else TowerSession(sessions)
        except BaseException:
            for session in sessions:
                session.close()
            raise

    return open_


def decoder(sides: Sides) -> Callable[[Any, Ports, str], Decoder]:
    """Both embeddings at length 1; a model without one that ``sides`` asks for is refused."""

    def decode(spec: Any, ports: Ports, action: str) -> Decoder:
        for side in sides(spec, action):
            if side not in ports.outputs:
                raise ModelError(
                    f"{action} needs the {TOWER_OF[side]} tower, and this model has none",
                    where=spec.where(f"{action}.trt_engine"),
                )

        def run(outputs: Mapping[str, Array], geometries: Sequence[Geometry]) -> list[Embeddings]:
            rows = {role: unit_rows(values) for role, values in outputs.items()}
            return [
                Embeddings(*(rows[role][i] if role in rows else None for role in (VISUAL, TEXT)))
                for i in range(len(geometries))
            ]

        return run

    return decode


def batch_size(spec: Any, action: str) -> int:
    """``<action>.batch_size``."""
    return max(1, int(getattr(spec, action).batch_size))


def sidecars(onnx_file: Path) -> list[Path]:
    """The exporter's configurations and tokenizers in the folder of an ONNX file."""
    return sorted(path for suffix in (CONFIG, TOKENIZER) for path in onnx_file.absolute().parent.glob(f"*{suffix}"))


def sources(onnx_file: Path) -> dict[str, Path]:
    """The ONNX file, or those of both towers, by the ending of the engine's stem; ModelError where there is none."""
    files = tower_files(onnx_file)
    return {"" if tower == "combined" else f"_{tower}": file for tower, file in files.items()}


def sidecar(model: Path, suffix: str) -> Path | None:
    """The model's configuration or tokenizer: in its folder, ``export`` beside that folder, or the folder above.

    Of several, the one whose name the model's begins with, else the first.
    """
    place = Path(os.path.abspath(model))
    folder = place if place.is_dir() else place.parent
    for where in (folder, folder.parent / "export", folder.parent):
        found = sorted(where.glob(f"*{suffix}"))
        own = [path for path in found if place.name.startswith(path.name.removesuffix(suffix))]
        if found:
            return max(own, key=lambda path: len(path.name)) if own else found[0]
    return None


def trained_as(spec: ImageTextSpec, model: Path | None) -> tuple[str, bool] | None:
    """The network's type in lower case, and whether its texts are canonical: by its configuration, else by the spec.

    None where neither says it.

    Raises:
        DataError: the configuration cannot be read.
    """
    import yaml

    path = sidecar(model, CONFIG) if model else None
    if path is None:
        stated = "type" in spec.model.model_fields_set
        return (spec.model.type.lower(), spec.model.canonicalize_text) if stated else None
    try:
        content = yaml.safe_load(read_text(path))["model"]
        return str(content["type"]).lower(), bool(content.get("canonicalize_text", False))
    except (yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
        what = " ".join(f"{type(error).__name__} {error}".split())
        raise DataError(f"no configuration with model.type: {what}", where=str(path)) from error


def refuse_unknown(spec: ImageTextSpec, model: Path | None) -> None:
    """A model that reads images must say how it was trained.

    Raises:
        SpecError: neither its configuration nor the spec does.
    """
    if trained_as(spec, model) is None:
        raise SpecError(
            f"there is no *{CONFIG} around {model}, so the preprocessing is not known",
            where=spec.where("model.type"),
            remedy=f"Put the exporter's *{CONFIG} beside the model, or set model.type.",
        )


def transform(spec: ImageTextSpec, ports: Ports, visual: Transform | None, canonicalize: bool) -> TowerTransform:
    """Pictures by ``visual`` (None: the model has no such tower), texts by the model's tokenizer."""
    tensors = [ports.inputs[role] for role in ("input_ids", "attention_mask") if role in ports.inputs]
    length = tensors[0].shape[1] if tensors else 0
    if length is None:
        raise ModelError(
            f"input {tensors[0]} has a dynamic length", remedy="Export the model with a fixed context length."
        )
    given, where = spec.model.tokenizer, spec.where("model.tokenizer")
    source = Path(given) if given else sidecar(ports.source, TOKENIZER) if ports.source else None

    def encoder() -> Encoder:
        if source is None:
            raise SpecError(
                f"there is no *{TOKENIZER} folder around {ports.source}, and texts need one",
                where=where,
                remedy="Put the exporter's tokenizer folder beside the model, or set model.tokenizer.",
            )
        tokens = FixedLength(source, length, where)
        return (lambda text: tokens(canonical(text))) if canonicalize else tokens

    name = next((info.name for role, info in ports.inputs.items() if role in ("image", "video")), "")
    facts = {"tokenizer": str(source), "tokens": length, "canonical": canonicalize}
    return TowerTransform(visual, name, tuple(info.name for info in tensors), encoder, facts)


def with_texts(spec: Any, parts: Sequence[Dataset], remedy: str) -> Joined:
    """What inference embeds: ``parts``, then the texts of ``inference.text_file``; SpecError where that is nothing."""
    texts = [Listed(text_file(spec.inference.text_file))] if spec.inference.text_file else []
    if not parts and not texts:
        raise SpecError("there is nothing to embed", where=spec.where("inference"), remedy=remedy)
    return Joined([*parts, *texts])


def tell_unknown(spec: Any, action: str, data: Joined) -> Joined:
    """``data``, whose ``issues`` tell the texts of which the tokenizer knows no part: all of them look alike."""
    model = getattr(spec, action).trt_engine or spec.gen_trt_engine.onnx_file
    texts = dict.fromkeys(text for i in range(len(data)) if (text := data[i].meta.get("text")))
    source = spec.model.tokenizer or (model and sidecar(Path(model), TOKENIZER))
    if not texts or not source:
        return data
    known = trained_as(spec, Path(model)) if model else None
    cleaned = [canonical(text) if known and known[1] else text for text in texts]
    found = FixedLength(Path(source), LOOKED_AT, spec.where("model.tokenizer")).knows(cleaned)
    unknown = [text for text, any_part in zip(texts, found, strict=True) if not any_part]
    if unknown:
        data.issues.append(f"{counted(len(unknown), 'texts hold')} no word that the tokenizer knows: {some(unknown)}")
    return data


def towers(spec: type[ImageTextSpec], *, visual: Port, sides: Sides, **more: Any) -> Network:
    """A :class:`Network` with an input ``visual`` whose actions need the embeddings that ``sides`` tells."""
    dataset = more.pop("dataset")
    more["dataset"] = lambda spec, action: tell_unknown(spec, action, dataset(spec, action))
    shared = {"batch_size": batch_size, "open": opener(sides), "sidecars": sidecars, "sources": sources}
    return Network(**{"spec": spec, "bind": binder(visual), "decode": decoder(sides), **shared, **more})
