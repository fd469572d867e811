"""A model opened for a network: session, ports, transform and decoder in one place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

from nvidia_tao_deploy.data.sample import Dataset, Sample, called
from nvidia_tao_deploy.data.text import counted, some
from nvidia_tao_deploy.engine.manifest import Manifest
from nvidia_tao_deploy.errors import ModelError
from nvidia_tao_deploy.metrics.metric import Metric
from nvidia_tao_deploy.network import Decoder, Network, Ports
from nvidia_tao_deploy.pipeline.gather import gather, send_all
from nvidia_tao_deploy.pipeline.progress import progress, say
from nvidia_tao_deploy.pipeline.ranks import Team, joined
from nvidia_tao_deploy.pipeline.stream import Tally, refuse_nothing_read, run_numbered
from nvidia_tao_deploy.pipeline.workers import worker_count
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
    team: Team

    def predict(self, dataset: Dataset, tally: Tally, metric: Metric | None = None) -> Iterator[tuple[Sample, Any]]:
        """(sample, prediction) in dataset order, with progress shown and skipped images named at the end.

        Of several ranks, rank 0 yields what all of them found and the others yield nothing; they send what ``metric``
        needs of a prediction, where it says so.
        """
        team, runtime = self.team, self.spec.runtime
        batch_size = self.session.batch.clamp(
            max(1, min(self.network.batch_size(self.spec, self.action), len(dataset)))
        )
        workers = runtime.workers or (max(1, worker_count(0) // team.here) if team.count > 1 else 0)
        numbered = run_numbered(
            dataset,
            self.transform,
            self.session,
            self.ports,
            self.decode,
            batch_size=batch_size,
            workers=workers,
            worker_kind=runtime.worker_kind,
            transform_on=runtime.transform_on,
            strict=self.spec.strict,
            tally=tally,
            batches=team.taken(ceil(len(dataset) / batch_size)) if team.count > 1 else None,
            ready=team.meet,
        )
        if not team.leads:
            send_all(team, dataset, numbered, tally, batch_size, getattr(metric, "condensed", None))
            return
        with closing(numbered):
            yield from progress(gather(team, dataset, numbered, tally), len(dataset), self.action, called(dataset))
        if tally.skipped or tally.resized:  # they come as batches end, on whatever rank
            place = {str(dataset[i].path): i for i in reversed(range(len(dataset)))}
            for entries in (tally.skipped, tally.resized):
                entries.sort(key=lambda entry: place[entry[0]])
        for name, reason in tally.skipped:
            say(f"skipped: {name}: {reason}")
        if tally.resized:
            name, sizes = tally.resized[0]
            say(
                f"note: {counted(len(tally.resized), 'images are')} not of the size they were annotated at, so their "
                f"objects are not where the annotations say; the first: {name}: {sizes}"
            )
        refuse_nothing_read(tally, called(dataset))


@contextmanager
def opened(network: Network, spec: Any, action: str, call: Callable[[], Any] | None = None) -> Iterator[OpenModel]:
    """Open ``<action>.trt_engine`` (an engine or an ONNX file) for ``network``, on every rank of the run.

    ``call`` gives the job of a rank that is started for another GPU; None: this process stays alone.

    Raises:
        SpecError: the spec names no model.
        ModelError: the file is broken or does not fit the network.
        RuntimeUnavailableError: an engine whose GPU or runtime is not here.
    """
    wanted = wanted_ranks(spec, action) if call is not None else 1
    with ExitStack() as stack:
        team = stack.enter_context(joined(wanted, call or dict))
        path = Path(spec.require(f"{action}.trt_engine"))
        opened_file = partial(
            open_session,
            providers=spec.runtime.providers,
            provider_options=spec.runtime.provider_options,
            gpu=team.gpu(getattr(spec, action).gpu_ids),
            cuda_graph=spec.runtime.cuda_graph,
            contexts=spec.runtime.contexts,
        )
        built = Manifest.beside(path)
        if built and built.network not in (None, network.name):
            raise ModelError(
                f"the model was built for {built.network}, and this is {network.name}",
                where=str(path),
                remedy=f"Run {built.network} with it, or build it with {network.name} gen_trt_engine.",
            )
        session = stack.enter_context(closing(network.open(spec, action, opened_file)))
        for name, reason in getattr(session, "refused", {}).items():
            value = getattr(spec.runtime, name)
            if value != getattr(type(spec.runtime)(), name):
                say(f"note: runtime.{name}={str(value).lower()} is not possible here: {reason}")
        ports = network.bound(session.inputs, session.outputs, path)
        if network.check_classes and (count := built.classes if built else _class_count(path)) is not None:
            network.check_classes(spec, count)
            names, labels = list(network.labels(spec)), (built and built.labels) or []
            if names and labels and names != labels:
                say(f"note: built for the classes {some(labels, 20)}; the spec names {some(names, 20)}, in this order")
        say(f"{path} on {session.device}")
        transform = network.transform(spec, ports)
        yield OpenModel(network, spec, action, session, ports, transform, network.decode(spec, ports, action), team)


def wanted_ranks(spec: Any, action: str) -> int:
    """``runtime.ranks`` where set; else one per GPU that the action asks for and that is here."""
    if spec.runtime.ranks:
        return int(spec.runtime.ranks)
    section = getattr(spec, action)
    asked: int = max(section.num_gpus, len(set(section.gpu_ids)))
    if asked == 1:
        return 1
    from nvidia_tao_deploy.runtime.cuda import gpus

    here = len(gpus())
    if asked > max(here, 1):
        say(f"note: {action} asks for {asked} GPUs, {here} are here")
    return max(1, min(asked, here))


def _class_count(path: Path) -> int | None:
    """Classes of an ONNX file, from its plugin; None: not known."""
    if path.suffix.lower() != ".onnx":
        return None
    import onnx

    from nvidia_tao_deploy.graph.lower import class_count

    return class_count(onnx.load(str(path), load_external_data=False))
