"""Spec fields of (x / 255 - mean) / std, which many networks have under their own names."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from nvidia_tao_deploy.spec.sections import Section

Mean = Annotated[
    list[Annotated[float, Field(le=1)]],
    Field(min_length=1, max_length=3, description="Mean per channel on the scale 0..1."),
]
Std = Annotated[
    list[Annotated[float, Field(gt=0)]],
    Field(min_length=1, max_length=3, description="Deviation per channel, scale 0..1."),
]


class Augmentation(Section):
    """Normalisation of images."""

    mean: Mean = Field(default=[0.485, 0.456, 0.406])
    std: Std = Field(default=[0.229, 0.224, 0.225])


class HalfAugmentation(Section):
    """Normalisation of images."""

    mean: Mean = Field(default=[0.5, 0.5, 0.5])
    std: Std = Field(default=[0.5, 0.5, 0.5])
