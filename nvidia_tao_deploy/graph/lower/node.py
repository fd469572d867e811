"""What a lowering function is given: one plugin node with its attributes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nvidia_tao_deploy.arrays import Array
from nvidia_tao_deploy.graph.lower.emit import CannotLowerError, Emitter, Tensor


@dataclass(frozen=True)
class PluginNode:
    """One node of the graph whose op type is a TensorRT plugin.

    Attributes:
        inputs: tensor names; float16 ones have already been cast to float32.
        constants: name of a tensor -> its value, None where it is computed at run time.
    """

    name: str
    op_type: str
    inputs: tuple[str, ...]
    attrs: dict[str, Any]
    constants: Callable[[str], Array | None]

    def number(self, name: str, default: float | None = None) -> float:
        return float(self.numbers(name, 1, default)[0])

    def integer(self, name: str, default: int | None = None) -> int:
        return int(self.number(name, default))

    def flag(self, name: str, default: int | None = None) -> bool:
        return bool(self.number(name, default))

    def numbers(self, name: str, count: int | None = None, default: Any = None) -> list[float]:
        value = self.attrs.get(name, default)
        if value is None:
            raise CannotLowerError(f"its attribute {name!r} is missing")
        values = list(value) if isinstance(value, (list, tuple)) else [value]
        if count is not None and len(values) != count:
            raise CannotLowerError(f"its attribute {name!r} must hold {count} number(s), not {values}")
        return values

    def expect_inputs(self, *allowed: int) -> None:
        if len(self.inputs) not in allowed:
            raise CannotLowerError(f"it has {len(self.inputs)} inputs, expected {' or '.join(map(str, allowed))}")


# Emits the replacement; returns the tensor names that stand for the plugin's outputs, in order.
Lowering = Callable[[Emitter, PluginNode], list[Tensor]]
