"""A network's verbs as plain functions: ``evaluate(spec) -> results``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from nvidia_tao_deploy.network import Network

Verb = Callable[..., dict[str, Any]]


def verbs(network: Network) -> tuple[Verb, Verb, Verb]:
    """(gen_trt_engine, evaluate, inference) of ``network``; heavy imports wait for the first call.

    Each takes a spec file, a mapping or a typed spec, then ``key=value`` overrides.
    """
    return partial(_gen_trt_engine, network), partial(_evaluate, network), partial(_inference, network)


def _gen_trt_engine(network: Network, *args: Any, **kwargs: Any) -> dict[str, Any]:
    from nvidia_tao_deploy.actions.gen_trt_engine import gen_trt_engine

    return gen_trt_engine(network, *args, **kwargs)


def _evaluate(network: Network, *args: Any, **kwargs: Any) -> dict[str, Any]:
    from nvidia_tao_deploy.actions.evaluate import evaluate

    return evaluate(network, *args, **kwargs)


def _inference(network: Network, *args: Any, **kwargs: Any) -> dict[str, Any]:
    from nvidia_tao_deploy.actions.inference import inference

    return inference(network, *args, **kwargs)


def report_verb(network: Network, action: str) -> Verb:
    """``compare`` or ``diagnose`` of ``network``: reports that every network has which can be evaluated."""
    if action == "compare":
        from nvidia_tao_deploy.actions.compare import compare

        return partial(compare, network)
    from nvidia_tao_deploy.actions.diagnose import diagnose

    return partial(diagnose, network)
