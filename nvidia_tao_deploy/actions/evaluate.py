"""evaluate: the accuracy of a model on the user's annotated data."""

from __future__ import annotations

from typing import Any

from nvidia_tao_deploy.actions.measure import taken
from nvidia_tao_deploy.actions.model import opened
from nvidia_tao_deploy.actions.run import Run, action
from nvidia_tao_deploy.data.sample import called
from nvidia_tao_deploy.data.text import counted
from nvidia_tao_deploy.files import plain, write_json, write_text
from nvidia_tao_deploy.pipeline.progress import say
from nvidia_tao_deploy.pipeline.stream import Tally


@action
def evaluate(run: Run) -> dict[str, Any]:
    """Run the model over every image of the evaluation set and measure it.

    Returns:
        What results.json holds: the metric's keys, then the figures of the run (images, images/s, time shares).
        Of several ranks only rank 0 has it; the others return {}.
    """
    dataset = run.network.dataset(run.spec, "evaluate")
    issues = list(getattr(dataset, "issues", ()))
    for issue in issues:
        say(f"note: {issue}")
    metric = run.network.metric(run.spec, dataset)
    tally = Tally()
    with opened(run.network, run.spec, "evaluate", run.job) as model:
        device, leads = model.session.device, model.team.leads
        for sample, prediction in model.predict(dataset, tally, metric):
            taken(metric, sample, prediction, tally, strict=run.spec.strict)
    if not leads:
        return {}
    numbers = metric.compute()
    figures = {
        **tally.report(),
        "unit": called(dataset),
        "data_notes": issues,
        "runtime": device,
        "model": run.spec.evaluate.trt_engine,
    }
    # A metric's key wins: multitask_classification names its keys after the user's tasks.
    results = plain({**numbers, **{key: value for key, value in figures.items() if key not in numbers}})
    say(metric.report())
    skipped = f", {len(tally.skipped)} skipped" if tally.skipped else ""
    what = called(dataset)
    say(f"{counted(tally.images, what)} evaluated{skipped}, {tally.images_per_second:.1f} {what}/s on {device}")
    say(tally.summary())
    for name, text in getattr(metric, "files", dict)().items():  # of the figures, besides results.json
        write_text(run.folder / name, text)
    write_json(run.folder / "results.json", results)
    say(f"Results: {run.folder / 'results.json'}")
    kpi = metric.kpi() if hasattr(metric, "kpi") else numbers
    kpi = {key: value for key, value in kpi.items() if not isinstance(value, dict)}  # numbers only, no blocks
    run.status.record("RUNNING", "Evaluation metrics generated.", kpi=kpi)
    return dict(results)
