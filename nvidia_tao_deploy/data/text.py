"""Reading small text files, and naming a few of many things in a message."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from nvidia_tao_deploy.errors import DataError


def read_text(path: Path) -> str:
    """The file's text, UTF-8 with or without a byte-order mark.

    Raises:
        DataError: the file is missing, unreadable or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"not UTF-8 text (byte {error.start})", where=str(path), remedy="Save the file as UTF-8."
        ) from error
    except OSError as error:
        raise DataError(
            f"cannot read the file: {error.strerror or error}", where=str(path), remedy="Check the path."
        ) from error


def read_lines(path: Path) -> list[str]:
    """The file's lines without their ends; see :func:`read_text`."""
    return read_text(path).splitlines()


def some(items: Iterable[object], limit: int = 5) -> str:
    """The first ``limit`` items joined by commas, and how many more there are; "none" where there are none."""
    listed = [str(item) for item in items]
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return (", ".join(listed[:limit]) or "none") + more


_FOR_ONE = {"are": "is", "were": "was", "have": "has", "do": "does", "hold": "holds", "show": "shows", "name": "names",
            "count": "counts", "they": "it", "them": "it", "their": "its"}  # fmt: skip


def counted(number: int, words: str) -> str:
    """E.g. "3 images have" or, by the same words, "1 image has": ``words`` are for several, with a noun in s."""
    if number != 1:
        return f"{number} {words}"
    head, noun, rest = re.split(r"(\w+s)\b", words, maxsplit=1)
    one = re.sub("ie$", "y", noun[:-1]) if not noun.endswith(("sses", "xes")) else noun[:-2]
    return f"1 {head}{one}" + re.sub(r"\b(?<!not )\w+", lambda word: _FOR_ONE.get(word[0], word[0]), rest)
