"""The one list of networks: command name -> where its ``NETWORK`` lives. Importing this imports no network."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """What the command line must know of a network before anything heavy is imported.

    Attributes:
        module: the module that holds ``NETWORK``.
        title: one line for ``--help``.
        protobuf: the network also takes protobuf-text specs and the established flags.
        actions: the verbs its contract gives it.
    """

    module: str
    title: str
    protobuf: bool = False
    actions: tuple[str, ...] = ("gen_trt_engine", "evaluate", "inference")


NETWORKS: dict[str, Entry] = {
    "classification_pyt": Entry("nvidia_tao_deploy.cv.classification_pyt", "Image classification (PyTorch trainer)"),
    "detectnet_v2": Entry("nvidia_tao_deploy.cv.detectnet_v2", "DetectNet_v2 grid-box detector", protobuf=True),
    "rtdetr": Entry("nvidia_tao_deploy.cv.rtdetr", "RT-DETR real-time detection transformer"),
}

# Other names under which a network's command is known.
ALIASES: dict[str, str] = {"detectnet": "detectnet_v2"}

COMMANDS: tuple[str, ...] = (*NETWORKS, *ALIASES)


def canonical(name: str) -> str | None:
    """The network's own name for a command name or alias; None if there is no such network."""
    name = ALIASES.get(name, name)
    return name if name in NETWORKS else None
