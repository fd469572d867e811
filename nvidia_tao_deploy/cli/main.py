"""argv -> network, action, spec. Nothing heavy is imported before an action runs."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

from nvidia_tao_deploy.errors import TaoDeployError, UsageError
from nvidia_tao_deploy.networks import COMMANDS, NETWORKS, canonical
from nvidia_tao_deploy.spec.flags import flag_values, flags_for, spec_is_optional
from nvidia_tao_deploy.version import __version__

ACTION_HELP = {
    "gen_trt_engine": "build a TensorRT engine from an ONNX file",
    "evaluate": "measure the accuracy of an engine or ONNX file",
    "inference": "write labels and annotated images",
    "compare": "build several precisions, measure each, and say which to use",
    "diagnose": "find the layers that lose accuracy when quantized",
    "default_specs": "write a commented spec with every default",
}
TO_PRINT = ": on the screen, or into DIR/experiment.yaml"
REPORTS = ("compare", "diagnose")
INTERRUPTED = 130
TERMINATED = 143


def run() -> None:
    """Entry of the console commands: the command's own name is the network's."""
    sys.exit(main([Path(sys.argv[0]).stem, *sys.argv[1:]]))


def main(argv: Sequence[str]) -> int:
    """Run ``argv`` (network name first, as the shell gives it) and return the exit code.

    0 done, 1 failed, 2 usage or spec, 130 interrupted, 143 terminated.
    """
    verbose = False
    try:
        command = _parse(argv)
        verbose = command.verbose
        with _signals():
            _execute(command)
    except TaoDeployError as error:
        _fail(f"Error: {error}", verbose)
        return error.exit_code
    except KeyboardInterrupt:
        _fail("Interrupted.", False)
        return INTERRUPTED
    except SystemExit as error:  # argparse's own endings, and SIGTERM
        if isinstance(error, _Terminated):
            _fail("Terminated.", False)
        return error.code if isinstance(error.code, int) else 1
    except BrokenPipeError:
        # The reader of our output went away (`| head`); there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # the disk behind the output or the log is full, a file is taken away meanwhile, ...
        _fail(f"Error: {error.filename or 'cannot write the output'}: {error.strerror or error}", verbose)
        return 1
    except Exception as error:
        _fail(f"Internal error: {type(error).__name__}: {error}", verbose)
        print("  This is a defect of nvidia_tao_deploy; run again with --verbose and report it.", file=sys.stderr)
        return 1
    return 0


class _Terminated(SystemExit):
    """SIGTERM."""


class _Parser(argparse.ArgumentParser):
    """argparse with our wording for a wrong command line."""

    def error(self, message: str) -> Any:
        raise UsageError(message, remedy=f"See '{self.prog} --help'.")


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command; its ``overrides`` are the ``key=value`` words, its ``given`` the same as a dict."""
    name, words = argv[0], list(argv[1:])
    network = None if name == "model_agnostic" else _network(name)
    about = "Any network, named by model_name in its spec."
    if network is not None:
        about = f"{NETWORKS[network].title}. Every key of the spec can be overridden with key=value."
    parser = _Parser(prog=name, description=about)
    parser.add_argument("--version", action="version", version=f"nvidia_tao_deploy {__version__}")
    # Flags of this group are accepted before the action and after it; SUPPRESS keeps one from undoing the other.
    common = _common_flags(_Parser(add_help=False))
    _common_flags(parser)
    parser.set_defaults(network=network, model_name=None, **dict.fromkeys(("spec_file", "log_file", "gpu_index")))
    parser.set_defaults(verbose=False, json=False)
    actions = parser.add_subparsers(dest="action", metavar="ACTION", title="actions", required=True)
    for action in (*(NETWORKS[network].actions if network else list(ACTION_HELP)[:-1]), "default_specs"):
        spec = "[-e SPEC]" if network and spec_is_optional(network, action) else "-e SPEC"
        usage = f"{name} {action} {spec} [options] [key=value ...]"
        parents = [common]
        if action == "default_specs":  # it prints text, and runs nothing
            usage, parents = f"{name} {action} [options] [results_dir=DIR]", []
        about = f"{ACTION_HELP[action][0].upper()}{ACTION_HELP[action][1:]}{TO_PRINT * (action == 'default_specs')}."
        sub = actions.add_parser(action, help=ACTION_HELP[action], parents=parents, usage=usage, description=about)
        _action_arguments(sub, network, action)
    command, overrides = parser.parse_known_args(words)
    for word in overrides:
        if word.startswith("-"):
            remedy = f"See '{name} {command.action} --help'. Keys of the spec are given as key=value."
            raise UsageError(f"unknown option {word.partition('=')[0]}", remedy=remedy)
        if "=" not in word and not word.startswith("~"):
            spec = f"Give the spec file as -e {word}. " if Path(word).suffix in (".yaml", ".yml", ".txt") else ""
            remedy = f"{spec}Overrides are key=value, without blanks: results_dir=/tmp/out."
            raise UsageError(f"'{word}' is not an override", remedy=remedy)
    command.overrides, command.given = overrides, dict(word.split("=", 1) for word in overrides if "=" in word)
    return command


def _common_flags(parser: _Parser) -> _Parser:
    default = argparse.SUPPRESS
    names = ("-e", "--experiment_spec_file")  # the protobuf networks' --experiment_spec is taken as its beginning
    parser.add_argument(*names, default=default, metavar="SPEC", dest="spec_file", help="the spec file")
    parser.add_argument("--gpu_index", default=default, metavar="N|UUID", help="GPU to use, among the visible ones")
    parser.add_argument("--log_file", default=default, metavar="FILE", help="also append everything printed to FILE")
    parser.add_argument("--json", action="store_true", default=default, help="print the result, and only it, as JSON")
    parser.add_argument("-v", "--verbose", action="store_true", default=default, help="log details; show tracebacks")
    return parser


def _action_arguments(sub: argparse.ArgumentParser, network: str | None, action: str) -> None:
    if action == "default_specs":
        sub.add_argument("--schema", action="store_true", help="print the JSON Schema of the spec instead")
    if network is None:
        sub.add_argument("-m", "--model_name", metavar="NAME", help="the network, where no spec names it")
    elif NETWORKS[network].flags and action != "default_specs":
        group = sub.add_argument_group("established flags, each also a key of the spec")
        for flag in flags_for(network, action):
            if "--verbose" in flag.names:
                continue  # one of the flags every command has
            kind: dict[str, Any] = {"type": flag.type, "metavar": flag.dest.upper()}
            if flag.type is bool:
                kind = {"action": "store_true", "default": None}
            elif flag.choices:
                kind = {"type": flag.type, "choices": flag.choices}
            group.add_argument(*flag.names, dest=flag.dest, help=flag.help, **kind)


def _execute(command: argparse.Namespace) -> None:
    if command.action == "default_specs":
        _default_specs(command)
        return
    with ExitStack() as stack:
        if command.log_file:
            stack.enter_context(_tee(Path(command.log_file)))
        if (job := os.environ.get("JOB_ID")) and _leads():
            # The established services read a job's output there; a run does not fail over it.
            log = Path(os.environ.get("TAO_MICROSERVICES_TTY_LOG") or "/results") / job / "microservices_log.txt"
            try:
                stack.enter_context(_tee(log, "JOB_ID"))
            except UsageError as error:
                print(f"note: {error}", file=sys.stderr)
        out = sys.stdout
        if command.json:
            stack.enter_context(redirect_stdout(sys.stderr))
        try:
            result = _run_action(command)
        except BaseException:
            if _leads():
                print("Execution status: FAIL", flush=True)
            raise
        if not _leads():
            return
        print("Execution status: PASS", flush=True)
        if command.json:
            print(json.dumps(result, allow_nan=False), file=out, flush=True)


def _leads() -> bool:
    """Whether this is the rank that speaks for all (any run that is not under mpirun is)."""
    from nvidia_tao_deploy.pipeline.ranks import current

    return current().leads


def _run_action(command: argparse.Namespace) -> Any:
    network = command.network or _named_network(command)
    if command.action not in NETWORKS[network].actions:
        raise UsageError(
            f"{network} has no action {command.action}", remedy=f"It has {', '.join(NETWORKS[network].actions)}."
        )
    established = NETWORKS[network].flags
    flags = flag_values(network, command.action, vars(command)) if established and command.network else {}
    # Nothing is read where the established flags alone say it all.
    optional = established and not command.spec_file and spec_is_optional(network, command.action)
    source: Path | dict[str, Any] = {} if optional else _spec_file(command)
    overrides = list(command.overrides)
    if command.gpu_index is not None:
        overrides += _gpu_overrides(command.action, command.gpu_index)
    if command.verbose and command.action == "gen_trt_engine":
        overrides.append("gen_trt_engine.verbose=true")
    module = import_module(NETWORKS[network].module)
    if command.action in REPORTS:
        from nvidia_tao_deploy.actions.verbs import verb
        from nvidia_tao_deploy.pipeline.ranks import Team, adopt

        if not _leads():
            return {}
        adopt(Team())  # a report is made by one process: mpirun's others leave
        return verb(module.NETWORK, command.action)(source, overrides, flags=flags)
    return getattr(module, command.action)(source, overrides, flags=flags)


def _spec_file(command: argparse.Namespace) -> Path:
    if not command.spec_file:
        remedy = f"Give one with -e SPEC; '{command.network or 'NETWORK'} default_specs' writes one to start from."
        raise UsageError("no spec file is given", remedy=remedy)
    return Path(command.spec_file).absolute()


def _gpu_overrides(action: str, index: str) -> list[str]:
    """--gpu_index as spec overrides; a UUID becomes the only visible device."""
    if index.startswith(("GPU-", "MIG-")):
        os.environ["CUDA_VISIBLE_DEVICES"] = index
        from nvidia_tao_deploy.runtime.cuda import gpu_available

        if not gpu_available():
            raise UsageError(f"there is no GPU {index} here", where="--gpu_index", remedy="See nvidia-smi -L.")
        index = "0"
    if not index.isdigit():
        raise UsageError(f"{index} is not a device number or UUID", where="--gpu_index", remedy="See nvidia-smi -L.")
    build, evaluate = f"gen_trt_engine.gpu_id={index}", f"evaluate.gpu_ids=[{index}]"
    if action in REPORTS:
        return [build, evaluate]
    return [build] if action == "gen_trt_engine" else [f"{action}.gpu_ids=[{index}]"]


def _named_network(command: argparse.Namespace) -> str:
    """The network a model_agnostic command means: override, else -m, else the spec's model_name."""
    name = command.given.get("model_name") or command.model_name
    where = "model_name"
    if not name and command.action != "default_specs":
        from nvidia_tao_deploy.spec.read import read_file

        path = _spec_file(command)
        name, where = read_file(path, "model_agnostic")[0].get("model_name"), f"{path}: model_name"
    if not name:
        raise UsageError("no network is named", where=where, remedy="Set model_name in the spec, or give -m NAME.")
    return _network(str(name), where)


def _network(name: str, where: str | None = None) -> str:
    network = canonical(name)
    if network is None:
        close = get_close_matches(name, COMMANDS, n=1)
        remedy = f"Did you mean {close[0]}?" if close else f"There are {', '.join(NETWORKS)}."
        raise UsageError(f"there is no network '{name}'", where=where, remedy=remedy)
    return network


def _default_specs(command: argparse.Namespace) -> None:
    from nvidia_tao_deploy.files import write_text
    from nvidia_tao_deploy.spec.default_specs import default_specs, json_schema

    network = command.network or _named_network(command)
    model = import_module(NETWORKS[network].module).NETWORK.spec
    if command.schema:
        print(json.dumps(json_schema(model), indent=2))
        return
    text = default_specs(model, network)
    unknown = [key for key in command.given if key not in ("results_dir", "model_name")]
    if unknown:
        raise UsageError(f"default_specs takes results_dir=DIR only, not {unknown[0]}=")
    if "results_dir" not in command.given:
        print(text, end="")
        return
    path = Path(command.given["results_dir"]) / "experiment.yaml"
    replaced = path.exists()
    write_text(path, text)
    print(f"{'Replaced' if replaced else 'Written'}: {path}")


@contextmanager
def _tee(path: Path, where: str = "--log_file") -> Iterator[None]:
    """Everything printed also goes to ``path``, appended."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        log = path.open("a", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}", where=where) from error
    with log, redirect_stdout(_Tee(sys.stdout, log)), redirect_stderr(_Tee(sys.stderr, log)):
        yield


class _Tee:
    """A text stream that also writes into a log; everything else is the first stream's."""

    def __init__(self, stream: TextIO, log: TextIO) -> None:
        self._stream, self._log = stream, log

    def write(self, text: str) -> int:
        self._log.write(text)
        return self._stream.write(text)

    def flush(self) -> None:
        self._log.flush()
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _signals() -> Iterator[None]:
    """SIGTERM ends a run the way Ctrl-C does: recorded, nothing half-written.

    An error that comes of Ctrl-C is Ctrl-C: one that cuts an import off leaves as that module's own error.
    """
    interrupted = False

    def stop(*_: Any) -> None:
        raise _Terminated(TERMINATED)

    def interrupt(*_: Any) -> None:
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # the caller owns the signals
        yield
        return
    previous = {signal.SIGTERM: signal.signal(signal.SIGTERM, stop)}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        previous[signal.SIGINT] = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except Exception as error:
        if interrupted:
            raise KeyboardInterrupt from error
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _fail(message: str, verbose: bool) -> None:
    if verbose:
        traceback.print_exc()
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
