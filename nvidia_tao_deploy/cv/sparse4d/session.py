"""The model with its memory: a session that takes frames and feeds itself what it kept of the last one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.cv.sparse4d.spec import Inference, Model
from nvidia_tao_deploy.cv.sparse4d.tracking import Frame, Tracker
from nvidia_tao_deploy.cv.sparse4d.transform import ELAPSED, FRAME_POSE, SCENE, TIME
from nvidia_tao_deploy.errors import ModelError
from nvidia_tao_deploy.runtime.session import BatchLimits, Session, TensorInfo

FRAME_FACTS = (
    TensorInfo(SCENE, (1, 1), np.dtype(np.int64)),
    TensorInfo(TIME, (1, 1), np.dtype(np.float64)),
    TensorInfo(ELAPSED, (1, 1), np.dtype(np.float64)),
    TensorInfo(FRAME_POSE, (1, 4, 4), np.dtype(np.float64)),
)
IDS, RESET = "instance_ids", "temporal_reset"


def contract(model: Model) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Shapes of the inputs, ``timestamp`` among them, and of the outputs, by name."""
    cameras, queries, kept, dims = model.num_cameras, model.num_queries, model.num_temp_instances, model.embed_dims
    inputs = {
        "img": (1, cameras, 3, model.input_height, model.input_width),
        "projection_mat": (1, cameras, 4, 4),
        "image_wh": (1, cameras, 2),
        "input_cached_feature": (1, kept, dims),
        "input_cached_anchor": (1, kept, model.anchor_dims),
        "prev_exists": (1,),
        "interval_mask": (1, 1, 1),
        "timestamp": (1,),
    }
    outputs: dict[str, tuple[int, ...]] = {
        **{f"classification{i}": (1, queries, model.num_classes) for i in (1, 2)},
        **{f"prediction{i}": (1, queries, model.anchor_dims) for i in range(1, 7)},
        **{f"quality{i}": (1, queries, 2) for i in (1, 2)},
        "output_cached_feature": (1, queries, dims),
        "output_cached_anchor": (1, queries, model.anchor_dims),
    }
    return inputs, outputs


def check_tensors(model: Model, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> None:
    """Names, types and shapes are the contract's, open axes fit; ModelError where not, all of it named."""
    problems = []
    for kind, wanted, found in zip(("input", "output"), contract(model), (inputs, outputs), strict=True):
        have = {info.name: info for info in found}
        optional = {"timestamp"}
        problems += [f"no {kind} {name}" for name in wanted if name not in have and name not in optional]
        problems += [f"{kind} {name} is not expected" for name in have if name not in wanted]
        for name in wanted.keys() & have.keys():
            info, shape = have[name], wanted[name]
            fits = len(info.shape) == len(shape) and all(a in (None, b) for a, b in zip(info.shape, shape, strict=True))
            kinds = (np.bool_,) if name == "interval_mask" else (np.float32,)
            if not fits or info.dtype not in kinds:
                problems.append(f"{kind} {info} should be {' x '.join(map(str, shape))}")
    if problems:
        raise ModelError(
            f"the model does not fit: {'; '.join(sorted(problems))}",
            remedy="Check that it is a sparse4d export, and that section model of the spec has its sizes.",
        )


class TemporalSession:
    """Frames in, the model's outputs and the ids of its queries out; runs must be in the order of the frames."""

    slots = 1

    def __init__(self, session: Session, model: Model, settings: Inference) -> None:
        check_tensors(model, session.inputs, session.outputs)
        self._session, self._tracker = session, Tracker(model, settings)
        self.refused = {**getattr(session, "refused", {}), "contexts": "frames run one after the other"}
        self._shapes, outputs = contract(model)
        floats = np.dtype(np.float32)
        frame = tuple(TensorInfo(name, self._shapes[name], floats) for name in ("img", "projection_mat", "image_wh"))
        self.inputs = frame + FRAME_FACTS
        self.outputs = (
            *(TensorInfo(name, shape, floats) for name, shape in outputs.items()),
            TensorInfo(IDS, (1, model.num_queries), np.dtype(np.int64)),
            TensorInfo(RESET, (1,), np.dtype(np.bool_)),
        )
        self.batch, self.device = BatchLimits(1, 1), session.device
        self._outputs = outputs

    def run(self, feeds: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """Run the next frame; ModelError where an output is not finite or of another shape, or the run fails."""
        frame = Frame(int(feeds[SCENE][0, 0]), float(feeds[TIME][0, 0]), feeds[FRAME_POSE][0].copy())
        kept = self._tracker.start(frame)
        own = {
            name: np.zeros(self._shapes[name], np.float32) for name in self._shapes if name.startswith("input_cached")
        }
        if kept is not None:
            own = {name: array[None] for name, array in zip(own, kept, strict=True)}
        own["prev_exists"] = np.array([kept is not None], np.float32)
        own["interval_mask"] = np.array([[[kept is not None]]])
        # of a scene's first frame on: seconds since 1970 do not fit
        own["timestamp"] = feeds[ELAPSED][0].astype(np.float32)
        names = [info.name for info in self._session.inputs]
        outputs = self._session.run({name: own[name] if name in own else feeds[name] for name in names})
        for name, shape in self._outputs.items():
            if outputs[name].shape != shape or not np.isfinite(outputs[name]).all():
                raise ModelError(
                    f"output {name} of shape {outputs[name].shape} should be {shape}, all finite",
                    remedy="Where a layer overflows in reduced precision, build in fp32.",
                )
        ids = self._tracker.finish(outputs)
        return {**outputs, IDS: ids[None], RESET: np.array([kept is None])}

    def cancel(self) -> None:
        """Make the run that is under way give up."""
        getattr(self._session, "cancel", lambda: None)()

    def close(self) -> None:
        """Release the model."""
        self._session.close()
