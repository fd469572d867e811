"""Turn trained vision models into verified TensorRT engines, measure them and run them."""

from nvidia_tao_deploy.version import __version__

__all__ = ["__version__"]
