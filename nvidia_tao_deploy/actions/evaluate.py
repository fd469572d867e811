"""evaluate: the accuracy of a model on the user's annotated data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nvidia_tao_deploy.actions.model import opened
from nvidia_tao_deploy.actions.rank_process import job
from nvidia_tao_deploy.actions.run import started
from nvidia_tao_deploy.data.sample import called
from nvidia_tao_deploy.files import plain, write_json, write_text
from nvidia_tao_deploy.network import Network
from nvidia_tao_deploy.pipeline.progress import say
from nvidia_tao_deploy.pipeline.stream import Tally

if TYPE_CHECKING:
    from nvidia_tao_deploy.spec.sections import NetworkSpec


def evaluate(
    network: Network,
    source: Path | str | Mapping[str, Any] | NetworkSpec,
    overrides: Sequence[str] = (),
    *,
    flags: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Run the model over every image of the evaluation set and measure it.

    Args are gen_trt_engine's.

    Returns:
        What results.json holds: the metric's keys, then the figures of the run (images, images/s, time shares).
        Of several ranks only rank 0 has it; the others return {}.

    Raises:
        TaoDeployError: anything the user can mend.
    """
    with started(network, "evaluate", source, overrides, flags) as run:
        dataset = network.dataset(run.spec, "evaluate")
        issues = list(getattr(dataset, "issues", ()))
        for issue in issues:
            say(f"note: {issue}")
        metric = network.metric(run.spec, dataset)
        tally = Tally()
        call = partial(job, network.name, "evaluate", source, overrides, flags)
        with opened(network, run.spec, "evaluate", call) as model:
            device, leads = model.session.device, model.team.leads
            for sample, prediction in model.predict(dataset, tally):
                metric.update(sample, prediction)
        if not leads:
            return {}
        numbers = metric.compute()
        figures = {**tally.report(), "data_notes": issues, "runtime": device, "model": run.spec.evaluate.trt_engine}
        # A metric's key wins: multitask_classification names its keys after the user's tasks.
        results = plain({**numbers, **{key: value for key, value in figures.items() if key not in numbers}})
        say(metric.report())
        skipped = f", {len(tally.skipped)} skipped" if tally.skipped else ""
        what = called(dataset)
        say(f"{tally.images} {what} evaluated{skipped}, {tally.images_per_second:.1f} {what}/s on {device}")
        say(tally.summary())
        for name, text in getattr(metric, "files", dict)().items():  # of the figures, besides results.json
            write_text(run.folder / name, text)
        write_json(run.folder / "results.json", results)
        say(f"Results: {run.folder / 'results.json'}")
        run.status.record("RUNNING", "Evaluation metrics generated.", kpi=numbers)
        return dict(results)
