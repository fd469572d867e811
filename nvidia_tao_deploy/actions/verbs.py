"""A network's verbs as plain functions: ``evaluate(spec) -> results``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

from nvidia_tao_deploy.network import Network

Verb = Callable[..., dict[str, Any]]


def verbs(network: Network) -> tuple[Verb, Verb, Verb]:
    """(gen_trt_engine, evaluate, inference) of ``network``; heavy imports wait for the first call.

    Each takes a spec file, a mapping or a typed spec, then ``key=value`` overrides.
    """
    return verb(network, "gen_trt_engine"), verb(network, "evaluate"), verb(network, "inference")


def verb(network: Network, action: str) -> Verb:
    """One of them, or ``compare`` or ``diagnose``, which every network has that can be evaluated."""
    return partial(_run, network, action)


def _run(network: Network, action: str, *args: Any, **kwargs: Any) -> Any:
    return getattr(import_module(f"nvidia_tao_deploy.actions.{action}"), action)(network, *args, **kwargs)
