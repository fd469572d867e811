"""What multitask_classification reads from its spec: the message ``Experiment``, and the actions' sections."""

from __future__ import annotations

from nvidia_tao_deploy.families.build_spec import PROTO_BUILD
from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.fields import field, section
from nvidia_tao_deploy.spec.messages import Interpolation
from nvidia_tao_deploy.spec.sections import NetworkSpec, Section


class GenTrtEngine(sections.GenTrtEngine):
    """ONNX file in, engine file out."""

    class_map: str | None = field(
        None, "class_mapping.json of the training, for actions that name none; building needs none."
    )


class Evaluate(sections.Evaluate):
    """Measure a model on the rows of a CSV file."""

    image_dir: str | None = field(None, "Images; else dataset_config.image_directory_path.")
    class_map: str | None = field(
        None, "class_mapping.json of the training; without it the CSV's values number the classes."
    )
    batch_size: sections.BatchSize = field(1, "Images per batch.")


class Inference(sections.Inference):
    """Run a model on the rows of a CSV file."""

    image_dir: str | None = field(None, "Images; else dataset_config.image_directory_path.")
    class_map: str | None = field(
        None, "class_mapping.json of the training; else evaluate.class_map, else the CSV's values."
    )
    batch_size: sections.BatchSize = field(1, "Images per batch.")


class DatasetConfig(Section):
    """Images and labels."""

    image_directory_path: str = field("", "Folder that the CSV's file names are relative to.")
    val_csv_path: str | None = sections.mandatory("CSV with a header: file name first, then one column per task.")


class Model(Section):
    """Facts about the trained network."""

    resize_interpolation_method: Interpolation = field("BILINEAR", "How images are resized.")


class Spec(NetworkSpec, network="multitask_classification", changes={"gen_trt_engine": GenTrtEngine, **PROTO_BUILD}):
    """Spec of multitask_classification; ``model_config`` of the file is the attribute ``model``."""

    dataset_config: DatasetConfig = section(DatasetConfig)
    model: Model = section(Model, alias="model_config")
    evaluate: Evaluate = section(Evaluate, "Measure a model on annotated data.")
    inference: Inference = section(Inference, "Run a model on images.")
