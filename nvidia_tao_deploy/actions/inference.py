"""inference: labels and annotated images for the user's images."""

from __future__ import annotations

from typing import Any

from nvidia_tao_deploy.actions.model import opened
from nvidia_tao_deploy.actions.run import Run, action
from nvidia_tao_deploy.data.sample import called
from nvidia_tao_deploy.data.text import counted
from nvidia_tao_deploy.files import plain
from nvidia_tao_deploy.pipeline.progress import say
from nvidia_tao_deploy.pipeline.stream import Tally


@action
def inference(run: Run) -> dict[str, Any]:
    """Run the model over the inference images and write what the network's contract says.

    Returns:
        ``outputs`` (paths a person should look at), ``skipped`` (file -> reason) and the figures of the run.
    """
    dataset = run.network.dataset(run.spec, "inference")
    for issue in getattr(dataset, "issues", ()):
        say(f"note: {issue}")
    tally = Tally()
    with opened(run.network, run.spec, "inference", run.job) as model:
        device, leads = model.session.device, model.team.leads
        writer = run.network.writer(run.spec, run.folder, dataset, model.ports)
        for sample, prediction in model.predict(dataset, tally):
            writer.write(sample, prediction)
    if not leads:
        return {}
    outputs = writer.close()
    skipped = f", {len(tally.skipped)} skipped" if tally.skipped else ""
    what = called(dataset)
    say(f"{counted(tally.images, what)}{skipped}, {tally.images_per_second:.1f} {what}/s on {device}")
    say(tally.summary())
    for path in outputs:
        say(f"Written: {path}")
    report = tally.report()
    report["images"] = report.pop("images_evaluated")
    return dict(plain({"outputs": outputs, "skipped": dict(tally.skipped), **report, "unit": what, "runtime": device}))
