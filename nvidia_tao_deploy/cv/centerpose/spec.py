"""What centerpose reads from its spec."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.fields import field, section
from nvidia_tao_deploy.spec.sections import NetworkSpec, Section


class Evaluate(sections.Evaluate):
    """Measure a model on annotated data."""

    eval_num_symmetry: int = field(1, "Turns about an object's y axis that look the same.", ge=1)


class Inference(sections.Inference):
    """Run a model on images."""

    focal_length_x: float = field(0, "Of the camera, pixels; needed.", ge=0)
    focal_length_y: float = field(0, "Of the camera, pixels; needed.", ge=0)
    principle_point_x: float = field(0, "Of the camera, pixels.")
    principle_point_y: float = field(0, "Of the camera, pixels.")
    skew: float = field(0, "Of the camera, pixels.")
    opencv: bool = field(True, "Poses in OpenCV's camera frame; false: in the annotations'.")
    axis_size: float = field(0.5, "Length of the drawn axes, in the unit of locations.", gt=0)
    save_json: bool = field(True, "Write a JSON file per image.")
    save_visualization: bool = field(True, "Write a picture per image.")


class Dataset(Section):
    """Images and ground truth."""

    test_data: str | None = field("", "Folder for evaluate: images, each with a JSON beside it.")
    inference_data: str | None = field("", "Folder of images for inference.")
    batch_size: int = field(4, "Images per batch where the action sets none.", ge=1)
    mean: list[float] = field(
        [0.40789654, 0.44719302, 0.47026115], "Mean of blue, green, red on the scale 0..1.", min_length=3, max_length=3
    )
    std: list[Annotated[float, Field(gt=0)]] = field(
        [0.28863828, 0.27408164, 0.27809835], "Deviation of blue, green, red, scale 0..1.", min_length=3, max_length=3
    )
    input_res: int = field(512, "Side of the input; one that is given must be the model's.", ge=1)
    output_res: int = field(128, "Side of the output grid; a quarter of the input if not given.", ge=1)
    use_absolute_scale: bool = field(False, "Predicted sizes are absolute, no ground plane needed.")


class Spec(
    NetworkSpec,
    network="centerpose",
    changes={"gen_trt_engine.tensorrt.opt_batch_size": 4, "gen_trt_engine.tensorrt.max_batch_size": 8},
):
    """Spec of centerpose."""

    dataset: Dataset = section(Dataset)
    evaluate: Evaluate = section(Evaluate)
    inference: Inference = section(Inference)
