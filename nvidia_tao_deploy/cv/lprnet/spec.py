"""What lprnet reads from its spec: fields of the message ``Experiment``, and the actions' sections."""

from __future__ import annotations

from nvidia_tao_deploy.families.build_spec import PROTO_BUILD, FloatPrecision
from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.fields import field, section
from nvidia_tao_deploy.spec.sections import NetworkSpec, Section, StrList


class TensorRT(sections.TensorRT):
    """How the engine is built."""

    data_type: FloatPrecision = field("fp32", "Precision of the engine; this network has no int8.")  # type: ignore[assignment]


class Inference(sections.Inference):
    """Run a model on images."""

    image_dir: StrList = field([], "Folders of images; else those of dataset_config.validation_data_sources.")


class DataSource(Section):
    """Plates and what stands on them."""

    image_directory_path: str = field("", "Folder of images.")
    label_directory_path: str = field("", "Folder of <image name>.txt, the plate in line 1.")


class DatasetConfig(Section):
    """Images, labels and characters."""

    validation_data_sources: list[DataSource] = field([], "Folders of evaluate and inference.")
    characters_list_file: str = field("", "One character per line; the blank is not listed.")


class EvalConfig(Section):
    """Settings of evaluate and inference."""

    batch_size: int = field(0, "Images per batch where the action sets none; 0 means 1.", ge=0)


class Spec(NetworkSpec, network="lprnet", changes={"gen_trt_engine.tensorrt": TensorRT, **PROTO_BUILD}):
    """Spec of lprnet."""

    dataset_config: DatasetConfig = section(DatasetConfig)
    eval_config: EvalConfig = section(EvalConfig)
    inference: Inference = section(Inference)
