"""inference: labels and annotated images for the user's images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nvidia_tao_deploy.actions.model import opened
from nvidia_tao_deploy.actions.rank_process import job
from nvidia_tao_deploy.actions.run import started
from nvidia_tao_deploy.data.sample import called
from nvidia_tao_deploy.files import plain
from nvidia_tao_deploy.network import Network
from nvidia_tao_deploy.pipeline.progress import say
from nvidia_tao_deploy.pipeline.stream import Tally

if TYPE_CHECKING:
    from nvidia_tao_deploy.spec.sections import NetworkSpec


def inference(
    network: Network,
    source: Path | str | Mapping[str, Any] | NetworkSpec,
    overrides: Sequence[str] = (),
    *,
    flags: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Run the model over the inference images and write what the network's contract says.

    Args are gen_trt_engine's.

    Returns:
        ``outputs`` (paths a person should look at), ``skipped`` (file -> reason) and the figures of the run.

    Raises:
        TaoDeployError: anything the user can mend.
    """
    with started(network, "inference", source, overrides, flags) as run:
        dataset = network.dataset(run.spec, "inference")
        for issue in getattr(dataset, "issues", ()):
            say(f"note: {issue}")
        tally = Tally()
        call = partial(job, network.name, "inference", source, overrides, flags)
        with opened(network, run.spec, "inference", call) as model:
            device, leads = model.session.device, model.team.leads
            writer = network.writer(run.spec, run.folder, dataset, model.ports)
            for sample, prediction in model.predict(dataset, tally):
                writer.write(sample, prediction)
        if not leads:
            return {}
        outputs = writer.close()
        skipped = f", {len(tally.skipped)} skipped" if tally.skipped else ""
        what = called(dataset)
        say(f"{tally.images} {what}{skipped}, {tally.images_per_second:.1f} {what}/s on {device}")
        say(tally.summary())
        for path in outputs:
            say(f"Written: {path}")
        report = tally.report()
        report["images"] = report.pop("images_evaluated")
        return dict(plain({"outputs": outputs, "skipped": dict(tally.skipped), **report, "runtime": device}))
