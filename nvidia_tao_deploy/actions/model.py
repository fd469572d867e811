"""A model opened for a network: session, ports, transform and decoder in one place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nvidia_tao_deploy.data.sample import Dataset, Sample
from nvidia_tao_deploy.network import Decoder, Network, Ports
from nvidia_tao_deploy.pipeline.progress import progress, say
from nvidia_tao_deploy.pipeline.stream import Tally, run_stream
from nvidia_tao_deploy.runtime.open import open_session
from nvidia_tao_deploy.runtime.session import Session
from nvidia_tao_deploy.transforms.transform import Transform


@dataclass
class OpenModel:
    """Everything between a dataset and its predictions."""

    network: Network
    spec: Any
    action: str
    session: Session
    ports: Ports
    transform: Transform
    decode: Decoder

    def predict(self, dataset: Dataset, tally: Tally) -> Iterator[tuple[Sample, Any]]:
        """(sample, prediction) in dataset order, with progress shown and skipped images named at the end."""
        wanted = self.network.batch_size(self.spec, self.action)
        stream = run_stream(
            dataset,
            self.transform,
            self.session,
            self.ports,
            self.decode,
            batch_size=wanted,
            workers=self.spec.runtime.workers,
            strict=self.spec.strict,
            tally=tally,
        )
        yield from progress(stream, len(dataset), self.action)
        for name, reason in tally.skipped:
            say(f"skipped: {name}: {reason}")


@contextmanager
def opened(network: Network, spec: Any, action: str) -> Iterator[OpenModel]:
    """Open ``<action>.trt_engine`` (an engine or an ONNX file) for ``network``.

    Raises:
        SpecError: the spec names no model.
        ModelError: the file is broken or does not fit the network.
        RuntimeUnavailableError: an engine whose GPU or runtime is not here.
    """
    key = f"{action}.trt_engine"
    path = Path(spec.require(key))
    section = getattr(spec, action)
    session = open_session(
        path,
        providers=spec.runtime.providers,
        provider_options=spec.runtime.provider_options,
        gpu=section.gpu_ids[0] if section.gpu_ids else 0,
        where=spec.where(key),
    )
    try:
        ports = network.bind(session.inputs, session.outputs)
        say(f"{path} on {session.device}")
        transform = network.transform(spec, ports)
        yield OpenModel(network, spec, action, session, ports, transform, network.decode(spec, ports, action))
    finally:
        session.close()
