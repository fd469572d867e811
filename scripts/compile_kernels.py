"""Compile transforms/finish.cu to PTX: ``python scripts/compile_kernels.py [--check]``; needs no GPU.

Needs ``pip install nvidia-cuda-nvrtc-cu11==11.7.99``: PTX of that version loads on every driver since 515. The
driver compiles it for the GPU it finds, so one file serves all from compute capability 5.3 on.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
from importlib.util import find_spec
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "nvidia_tao_deploy" / "transforms" / "finish.cu"


def compiled(source: str) -> bytes:
    """The PTX of a CUDA C source.

    Raises:
        SystemExit: NVRTC is missing, or the source does not compile.
    """
    spec = find_spec("nvidia.cuda_nvrtc")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("NVRTC is not installed: pip install nvidia-cuda-nvrtc-cu11==11.7.99")
    library = ctypes.CDLL(str(next(Path(spec.submodule_search_locations[0]).glob("lib/libnvrtc.so*"))))
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"finish.cu", 0, None, None)
    options = [b"--gpu-architecture=compute_53", b"--std=c++14"]
    failed = library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    what = "ProgramLog" if failed else "PTX"
    getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    getattr(library, f"nvrtcGet{what}")(program, text)
    if failed:
        raise SystemExit(text.value.decode())
    return text.value


def main() -> int:
    """Write finish.ptx, or with --check say whether it is what the source gives."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    ptx, target = compiled(SOURCE.read_text()), SOURCE.with_suffix(".ptx")
    if check:
        return int(target.read_bytes() != ptx)
    target.write_bytes(ptx)
    return 0


if __name__ == "__main__":
    sys.exit(main())
