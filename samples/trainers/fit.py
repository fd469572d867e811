"""The training loop and the export, written once for the three networks."""

from __future__ import annotations

import random
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    import onnx

Batch = tuple[Tensor, ...]
OPSET = 17


def seed_everything(seed: int = 7) -> None:
    """Same weights and batch order on every run of the same machine; two threads at most."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(2)


def fit(
    model: nn.Module,
    pool: Sequence[Tensor],
    loss: Callable[[nn.Module, Batch], Tensor],
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
) -> nn.Module:
    """Train with AdamW on a one-cycle schedule and return the model in eval mode.

    ``pool`` holds tensors with one row per example; ``loss`` gets the model and the rows of one shuffled batch.
    """
    count = len(pool[0])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_default_device(device)
    model.to(device)
    steps = epochs * (count // batch_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.2)
    started = time.monotonic()
    model.train()
    for epoch in range(epochs):
        total = 0.0
        for rows in torch.randperm(count)[: count // batch_size * batch_size].split(batch_size):
            value = loss(model, tuple(part[rows.to(part.device)].to(device) for part in pool))
            optimizer.zero_grad()
            value.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 10.0)
            optimizer.step()
            schedule.step()
            total += value.item()
        mean = total / (count // batch_size)
        print(f"  epoch {epoch + 1:2d}/{epochs}  loss {mean:.4f}  {time.monotonic() - started:.0f} s", flush=True)
    torch.set_default_device("cpu")
    return model.cpu().eval()


def export(
    model: nn.Module,
    path: Path,
    shape: tuple[int, ...],
    input_name: str | list[str],
    output_names: list[str],
    examples: Tensor | None = None,
    opset: int = OPSET,
) -> None:
    """Write ``model`` as ONNX with a dynamic batch axis, checked by onnx and against torch's outputs.

    Nodes of the domain ``trt`` are plugins: they are moved to the default domain, where the TAO exporters have them,
    and the check runs on the graph with its plugins lowered.

    ``shape`` is that of one example of every input, without the batch axis. ``examples`` are inputs to check with,
    noise by default.

    Raises:
        AssertionError: ONNX Runtime and torch differ by more than 1e-3 in over 3% of an output, for a batch of 1 or 3.
    """
    import onnx
    import onnxruntime

    from nvidia_tao_deploy.graph.lower import lower_plugins

    path.parent.mkdir(parents=True, exist_ok=True)
    input_names = [input_name] if isinstance(input_name, str) else input_name
    with warnings.catch_warnings():
        # The TorchScript exporter names nodes after the modules, as the TAO trainers' files do.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            tuple(torch.rand(len(input_names), 2, *shape)),
            str(path),
            dynamo=False,
            autograd_inlining=False,  # a plugin is one node, whatever its function computes
            opset_version=opset,
            input_names=input_names,
            output_names=output_names,
            dynamic_axes={name: {0: "batch"} for name in [*input_names, *output_names]},
        )
    proto = onnx.load(str(path))
    constants_to_initializers(proto)
    for node in proto.graph.node:
        if node.domain == "trt":
            node.domain, node.name = "", node.name.removesuffix(f"/{node.op_type}").lstrip("/")
    kept = [entry for entry in proto.opset_import if entry.domain != "trt"]
    del proto.opset_import[:]
    proto.opset_import.extend(kept)
    with torch.no_grad():
        results = model(*torch.rand(len(input_names), 1, *shape))
    declare_shapes(proto, [tuple(each.shape[1:]) for each in (results if isinstance(results, tuple) else (results,))])
    onnx.save(proto, str(path))
    plain = lower_plugins(proto).model
    onnx.checker.check_model(plain, full_check=True)
    session = onnxruntime.InferenceSession(plain.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        images = torch.rand(len(input_names), batch, *shape) if examples is None else examples[None, :batch]
        with torch.no_grad():
            wanted = model(*images)
        wanted = wanted if isinstance(wanted, tuple) else (wanted,)
        for name, ours, theirs in zip(
            output_names,
            session.run(None, dict(zip(input_names, images.numpy(), strict=True))),
            wanted,
            strict=True,
        ):
            # Not all elements: queries whose scores tie may change places in a top-k.
            close = np.isclose(ours, theirs.numpy(), rtol=1e-3, atol=1e-3).mean()
            assert close > 0.97, f"{path.name}: {name} agrees with torch in {close:.1%} of its elements only"
    parameters = sum(int(np.prod(tensor.dims)) for tensor in proto.graph.initializer)
    print(f"  {path}: {path.stat().st_size:,} bytes, {parameters:,} parameters, {len(proto.graph.node)} nodes")


def constants_to_initializers(proto: onnx.ModelProto) -> None:
    """Move Constant nodes to initializers of the same name, in place: TensorRT 8.5 wants TopK's K as one."""
    constants = [node for node in proto.graph.node if node.op_type == "Constant"]
    for node in constants:
        (value,) = (attribute.t for attribute in node.attribute if attribute.name == "value")
        value.name = node.output[0]
        proto.graph.initializer.append(value)
        proto.graph.node.remove(node)


def declare_shapes(proto: onnx.ModelProto, shapes: Sequence[tuple[int, ...]]) -> None:
    """Give each output its fixed axes after the batch, in place: the exporter leaves those behind a gather symbolic."""
    for output, shape in zip(proto.graph.output, shapes, strict=True):
        for dim, size in zip(list(output.type.tensor_type.shape.dim)[1:], shape, strict=True):
            dim.dim_value = size
