"""What every action shares: the spec, the results folder, status.json, and an end that is always recorded."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from nvidia_tao_deploy.data.text import some
from nvidia_tao_deploy.errors import SpecError, TaoDeployError
from nvidia_tao_deploy.files import cannot_write, write_text
from nvidia_tao_deploy.network import Network
from nvidia_tao_deploy.pipeline.progress import say
from nvidia_tao_deploy.pipeline.ranks import current
from nvidia_tao_deploy.pipeline.status import StatusLog
from nvidia_tao_deploy.spec.flags import flag_of
from nvidia_tao_deploy.spec.load import RESULT_FOLDERS, load_spec
from nvidia_tao_deploy.spec.trees import leaves

if TYPE_CHECKING:
    from nvidia_tao_deploy.spec.sections import NetworkSpec

# Where an action's files go under results_dir, and the word for it in status messages.
TASKS = {**RESULT_FOLDERS, "compare": "compare", "diagnose": "diagnose"}


@dataclass
class Run:
    """One action under way: its network, typed spec, results folder, status log, and the job of a further rank."""

    network: Network
    spec: Any
    folder: Path
    status: StatusLog
    job: Callable[[], dict[str, Any]]


class Action(Protocol):
    """A verb: ``evaluate(network, source) -> results``."""

    def __call__(
        self,
        network: Network,
        source: Path | str | Mapping[str, Any] | NetworkSpec,
        overrides: Sequence[str] = (),
        *,
        flags: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Run it.

        Args:
            network: which network.
            source: spec file, mapping, or typed spec.
            overrides: ``key=value`` entries over the spec.
            flags: values of the established command-line flags, by spec key.

        Raises:
            TaoDeployError: anything the user can mend.
        """


def action(body: Callable[[Run], dict[str, Any]]) -> Action:
    """``body``, called like its name, as a verb."""

    def verb(network: Network, source: Any, overrides: Sequence[str] = (), *, flags: Any = None) -> dict[str, Any]:
        with started(network, body.__name__, source, overrides, flags) as run:
            return body(run)

    verb.__name__, verb.__doc__ = body.__name__, body.__doc__  # and its own signature
    return verb


@contextmanager
def started(
    network: Network, action: str, source: Any, overrides: Sequence[str], flags: Mapping[str, Any] | None
) -> Iterator[Run]:
    """Load the spec, open the results folder, and record STARTED and then SUCCESS or FAILURE.

    Args are an `Action`'s.

    Raises:
        SpecError: the spec is wrong; recorded too where the results folder is known.
    """
    task = TASKS[action]
    try:
        spec = load_spec(network.spec, source, overrides, flags=flags or {})
        folder = results_folder(spec, action)
    except TaoDeployError as error:
        _record_early_failure(source, overrides, flags or {}, action, error)
        raise
    status = StatusLog(folder)
    try:
        say(f"{task.capitalize()} results will be saved at: {folder}")
        if current().leads:
            write_text(folder / "experiment.yaml", spec.to_yaml())
        for note in spec.notes:
            say(f"note: {note}")
        _check_gpus(spec, action)
        _record(status, "STARTED", f"Starting {network.name} {task}.")
        job = {"network": network.name, "action": action, "source": source, "overrides": overrides, "flags": flags}
        yield Run(network, spec, folder, status, lambda: job)
    except BaseException as error:
        if isinstance(error, TaoDeployError):
            _name_key(spec, action, error)
        _record_failure(status, failure_message(error, action))
        raise
    _record(status, "SUCCESS", f"{task.capitalize()} finished successfully.")


def results_folder(spec: NetworkSpec, action: str) -> Path:
    """``<action>.results_dir`` if set, else ``results_dir``/<task>.

    Raises:
        SpecError: neither is set.
    """
    own = getattr(spec, action).results_dir
    if own:
        return Path(own)
    if spec.results_dir:
        return Path(spec.results_dir) / TASKS[action]
    raise SpecError(
        "no results folder is given",
        where=spec.where("results_dir"),
        remedy=f"{'Give -r, or set' if flag_of(spec.network, f'{action}.results_dir') else 'Set'} results_dir.",
    )


def _check_gpus(spec: Any, action: str) -> None:
    """SpecError where GPUs are here, and not the one that is asked for; where none is, that is told."""
    asked = {} if action in ("evaluate", "inference") else {"gen_trt_engine.gpu_id": [spec.gen_trt_engine.gpu_id]}
    if action != "gen_trt_engine":
        section = action if action == "inference" else "evaluate"
        asked[f"{section}.gpu_ids"] = getattr(spec, section).gpu_ids
    for key, ids in asked.items():
        if not any(ids):  # 0 is the default
            continue
        from nvidia_tao_deploy.runtime.cuda import gpus

        here = len(gpus())
        if not here:
            say(f"note: {key} is {some(ids)}, and no GPU is here")
        elif max(ids[:here]) >= here:  # of more than there are, the first are taken
            there = "GPU 0" if here == 1 else f"GPUs 0 to {here - 1}"
            raise SpecError(
                f"there is no GPU {max(ids[:here])}", where=spec.where(key), remedy=f"This machine shows {there}."
            )


def failure_message(error: BaseException, action: str) -> str:
    """The FAILURE message: the contract's prefix for this kind of error, then its text."""
    if isinstance(error, TaoDeployError):
        return f"{error.status_prefix}{error}"
    if isinstance(error, (KeyboardInterrupt, SystemExit)):
        return f"User/System interruption: {action.capitalize()} was interrupted"
    prefixes: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...] = (
        (NotImplementedError, "Feature not implemented: "),
        ((ValueError, TypeError), "Parameter validation error: "),
        (OSError, "File system error: "),
    )
    prefix = next((text for kind, text in prefixes if isinstance(error, kind)), "Execution error: ")
    return f"{prefix}{error}"


def _name_key(spec: NetworkSpec, action: str, error: TaoDeployError) -> None:
    """Where an error is about a path that the spec gives, its place tells the key and the line too.

    Of several keys with this path the action's own counts; where it is still open which one is meant, none is named.
    """
    if error.where is None:
        return
    if spec.get(error.where) is not None:  # a key's name
        error.where = spec.where(error.where)
    path = re.sub(r":\d+$", "", error.where)  # of a place inside a file, the file
    given = ((key, value) for key, value in leaves(spec.tree()) if value and isinstance(value, str))
    keys = [key for key, value in given if path in (value, str(Path(value)), os.path.abspath(value))]
    own = [key for key in keys if key.startswith(f"{action}.")] or keys
    if len(own) == 1:
        place = spec.where(own[0])
        error.where = place if place.endswith(f"={error.where}") else f"{place}: {error.where}"


def _record(status: StatusLog, word: str, message: str) -> None:
    try:
        status.record(word, message)
    except OSError as error:
        raise cannot_write(status.path, error) from error


def _record_failure(status: StatusLog, message: str) -> None:
    try:
        status.record("FAILURE", message, verbosity="ERROR")
    except OSError as error:  # a full disk must not hide the error that ends the run
        say(f"note: could not write {status.path}: {error.strerror}")


def _record_early_failure(
    source: Any, overrides: Sequence[str], flags: Mapping[str, Any], action: str, error: TaoDeployError
) -> None:
    """Leave a FAILURE record also when the spec itself is wrong, where the results folder is plain to see."""
    folder = _folder_hint(source, overrides, flags, action)
    if folder is not None and folder.is_dir():
        _record_failure(StatusLog(folder), failure_message(error, action))


def _folder_hint(source: Any, overrides: Sequence[str], flags: Mapping[str, Any], action: str) -> Path | None:
    named = dict(entry.lstrip("+").split("=", 1) for entry in overrides if "=" in entry)
    named.update({key: value for key, value in flags.items() if isinstance(value, str)})
    if named.get(f"{action}.results_dir"):
        return Path(named[f"{action}.results_dir"])
    root = named.get("results_dir")
    if not root and isinstance(source, Mapping):
        root = source.get("results_dir")
    if not root and isinstance(source, (str, Path)):
        root = _results_dir_in(Path(source))
    return Path(root) / TASKS[action] if isinstance(root, str) and root not in ("", "???") else None


def _results_dir_in(path: Path) -> str | None:
    """The top-level ``results_dir`` line of a spec file that may be broken elsewhere."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    value = next((line.partition(":")[2] for line in lines if line.startswith("results_dir:")), "")
    return value.split("#")[0].strip().strip("'\"") or None
