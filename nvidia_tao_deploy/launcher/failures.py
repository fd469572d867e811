"""The launcher's own failures; their exit codes are the ones ``docker run`` uses for the same trouble."""

from __future__ import annotations

from nvidia_tao_deploy.errors import TaoDeployError


class ContainerError(TaoDeployError):
    """The engine cannot start the container: image missing, digest wrong, daemon refuses."""

    exit_code = 125


class EngineMissingError(TaoDeployError):
    """Neither docker nor podman is there, or its daemon does not answer."""

    exit_code = 127
