"""What centerpose reads from its spec."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.sections import NetworkSpec, Section


class TensorRT(sections.TensorRT):
    """How the engine is built."""

    opt_batch_size: int = Field(default=4, ge=1, description="Batch the engine is tuned for.")
    max_batch_size: int = Field(default=8, ge=1, description="Largest batch of the profile.")


class GenTrtEngine(sections.GenTrtEngine):
    """ONNX file in, engine file out."""

    tensorrt: TensorRT = Field(default_factory=TensorRT, description="How the engine is built.")


class Evaluate(sections.Evaluate):
    """Measure a model on annotated data."""

    eval_num_symmetry: int = Field(default=1, ge=1, description="Turns about an object's y axis that look the same.")


class Inference(sections.Inference):
    """Run a model on images."""

    focal_length_x: float = Field(default=0, ge=0, description="Of the camera, pixels; needed.")
    focal_length_y: float = Field(default=0, ge=0, description="Of the camera, pixels; needed.")
    principle_point_x: float = Field(default=0, description="Of the camera, pixels.")
    principle_point_y: float = Field(default=0, description="Of the camera, pixels.")
    skew: float = Field(default=0, description="Of the camera, pixels.")
    opencv: bool = Field(default=True, description="Poses in OpenCV's camera frame; false: in the annotations'.")
    axis_size: float = Field(default=0.5, gt=0, description="Length of the drawn axes, in the unit of locations.")
    save_json: bool = Field(default=True, description="Write a JSON file per image.")
    save_visualization: bool = Field(default=True, description="Write a picture per image.")


class Dataset(Section):
    """Images and ground truth."""

    test_data: str | None = Field(default="", description="Folder for evaluate: images, each with a JSON beside it.")
    inference_data: str | None = Field(default="", description="Folder of images for inference.")
    batch_size: int = Field(default=4, ge=1, description="Images per batch where the action sets none.")
    mean: list[float] = Field(
        default=[0.40789654, 0.44719302, 0.47026115],
        min_length=3,
        max_length=3,
        description="Mean of blue, green, red on the scale 0..1.",
    )
    std: list[Annotated[float, Field(gt=0)]] = Field(
        default=[0.28863828, 0.27408164, 0.27809835],
        min_length=3,
        max_length=3,
        description="Deviation of blue, green, red, scale 0..1.",
    )
    input_res: int = Field(default=512, ge=1, description="Side of the input; one that is given must be the model's.")
    output_res: int = Field(
        default=128, ge=1, description="Side of the output grid; a quarter of the input if not given."
    )
    use_absolute_scale: bool = Field(default=False, description="Predicted sizes are absolute, no ground plane needed.")


class Spec(NetworkSpec):
    """Spec of centerpose."""

    network: ClassVar[str] = "centerpose"

    dataset: Dataset = Field(default_factory=Dataset, description="Images and ground truth.")
    gen_trt_engine: GenTrtEngine = Field(default_factory=GenTrtEngine, description="ONNX file in, engine file out.")
    evaluate: Evaluate = Field(default_factory=Evaluate, description="Measure a model on annotated data.")
    inference: Inference = Field(default_factory=Inference, description="Run a model on images.")
