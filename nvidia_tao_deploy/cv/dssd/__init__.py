"""DSSD: SSD with deconvolution; contract, spec and status name are ssd's."""

from nvidia_tao_deploy.cv.ssd import NETWORK, evaluate, gen_trt_engine, inference

__all__ = ["NETWORK", "evaluate", "gen_trt_engine", "inference"]
