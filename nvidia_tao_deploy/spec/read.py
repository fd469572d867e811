"""Spec files to plain data: YAML or protobuf text."""

from __future__ import annotations

from pathlib import Path

from nvidia_tao_deploy.errors import SpecError
from nvidia_tao_deploy.spec.known import proto_tables
from nvidia_tao_deploy.spec.trees import Tree


def read_file(path: Path, network: str) -> tuple[Tree, dict[str, int], list[str]]:
    """A spec file as plain data, the line of each key, and notes; YAML or, for networks that have it, protobuf text.

    Raises:
        SpecError: the file is missing, unreadable, or malformed.
    """
    from nvidia_tao_deploy.spec.yaml_file import read_yaml

    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise SpecError(
            "this spec file does not exist", where=str(path), remedy="Check the path given with -e."
        ) from None
    except IsADirectoryError:
        raise SpecError("this is a folder, not a spec file", where=str(path), remedy="Give a file with -e.") from None
    except UnicodeDecodeError:
        raise SpecError("this is not a text file", where=str(path), remedy="Give a spec file with -e.") from None
    except OSError as error:
        raise SpecError(f"cannot read the file: {error.strerror}", where=str(path)) from None
    name = str(path)
    if proto_tables(network) is None:
        try:
            return read_yaml(text, name)
        except SpecError as error:
            if _looks_like_yaml(text) or path.suffix.lower() in (".yaml", ".yml"):
                raise
            remedy = f"'{network} default_specs' writes one."
            raise SpecError(f"{network} takes YAML specs, and this is none", where=name, remedy=remedy) from error
    from nvidia_tao_deploy.spec.protobuf_text import parse_text

    yaml_error: SpecError | None = None
    if path.suffix.lower() in (".yaml", ".yml"):
        try:
            return read_yaml(text, name)
        except SpecError as error:
            yaml_error = error
    try:
        return (*parse_text(text, network, name), [])
    except SpecError as text_error:
        if yaml_error is not None:
            raise yaml_error from None
        try:
            tree, lines, notes = read_yaml(text, name)
        except SpecError as error:
            if _looks_like_yaml(text):
                raise error from None
            raise text_error from None
        # YAML takes almost anything for a key, e.g. the line "block { field: 1".
        if all(str(key).isidentifier() for key in tree):
            return tree, lines, notes
        raise text_error from None


def _looks_like_yaml(text: str) -> bool:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    blocks = sum(line.rstrip().endswith((":", "|", ">")) or line.lstrip().startswith("- ") for line in lines)
    braces = sum(line.rstrip().endswith(("{", "}", "<")) for line in lines)
    return blocks > braces
