"""Errors a user can act on: what is wrong, where, and what to do.

The command line prints them without a traceback and exits with ``exit_code``;
``status_prefix`` starts the FAILURE message of ``status.json``.
"""

from __future__ import annotations


class TaoDeployError(Exception):
    """Base of every error that is the user's or the environment's to mend.

    Args:
        what: one sentence naming what is wrong, with the offending value.
        where: file, ``file:line`` or ``file:line: dotted.key``, when there is one place.
        remedy: what to do about it, as a sentence.
    """

    exit_code = 1
    status_prefix = "Execution error: "

    def __init__(self, what: str, *, where: str | None = None, remedy: str | None = None) -> None:
        self.what, self.where, self.remedy = what, where, remedy
        super().__init__(what)

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}\n  {self.remedy}" if self.remedy else text


class UsageError(TaoDeployError):
    """The command line itself is wrong."""

    exit_code = 2
    status_prefix = "Configuration error: "


class SpecError(TaoDeployError):
    """The spec file or an override is wrong: syntax, unknown key, type, range, missing value."""

    exit_code = 2
    status_prefix = "Configuration error: "


class SpecValueError(SpecError):
    """A value of the spec has the wrong type, or lies outside what is allowed."""

    status_prefix = "Parameter validation error: "


class DataError(TaoDeployError):
    """Images, labels or annotations are missing, unreadable or contradict each other."""

    status_prefix = "File system error: "


class ModelError(TaoDeployError):
    """An ONNX file or engine is missing, broken, or not what the network's contract asks for."""

    status_prefix = "Parameter validation error: "


class ModelFileError(ModelError):
    """A model's file is not there, or cannot be read."""

    status_prefix = "File system error: "


class BuildError(TaoDeployError):
    """The engine builder refused or failed."""


class RuntimeUnavailableError(TaoDeployError):
    """The runtime or device that a file needs is not on this machine."""
