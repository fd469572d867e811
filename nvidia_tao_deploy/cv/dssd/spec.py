"""dssd reads what ssd reads."""

from nvidia_tao_deploy.cv.ssd.spec import Spec

__all__ = ["Spec"]
