"""Version of a release: nvidia_tao_deploy/version.py, its patch number replaced by ``build.info`` where there is one.

``python release/python/version.py`` prints it; ``--build-info FILE`` names another file.
"""

from __future__ import annotations

import argparse
import re
import runpy
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)((?:a|b|rc|\.dev|\.post)\d+)?")


def release_version(build_info: Path | None = None) -> str:
    """``MAJOR.MINOR.PATCH`` and a pre-release suffix if the package has one.

    Args:
        build_info: a file whose stripped content replaces PATCH; default: ``build.info`` of the current folder.

    Raises:
        ValueError: the package's version or the patch number is not of that form.
    """
    text = str(runpy.run_path(str(TOP / "nvidia_tao_deploy" / "version.py"))["__version__"])
    parts = _VERSION.fullmatch(text)
    if not parts:
        raise ValueError(f"nvidia_tao_deploy/version.py: {text!r} is not MAJOR.MINOR.PATCH")
    patch = parts[3]
    path = build_info or Path("build.info")
    if build_info or path.exists():
        patch = path.read_text(encoding="utf-8").strip()
        if not re.fullmatch(r"\d+", patch):
            raise ValueError(f"{path}: {patch!r} is not a patch number")
    return f"{parts[1]}.{parts[2]}.{patch}{parts[4] or ''}"


def main(argv: list[str]) -> int:
    """Print the version."""
    parser = argparse.ArgumentParser(description="Print the version of a release.")
    parser.add_argument("--build-info", type=Path, help="file with the patch number")
    try:
        print(release_version(parser.parse_args(argv).build_info))
    except (OSError, ValueError) as error:
        print(f"version.py: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
