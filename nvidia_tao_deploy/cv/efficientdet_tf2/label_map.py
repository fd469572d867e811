"""Names of classes: a file, or one of the lists that training knows by name."""

from __future__ import annotations

from pathlib import Path

from nvidia_tao_deploy.data.text import read_text
from nvidia_tao_deploy.errors import SpecError
from nvidia_tao_deploy.families.coco_detection import read_class_map

# Class ids are the datasets' own: COCO's 80 categories among 1..90, VOC's 20 and Waymo's 3 from 1.
_COCO = """person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant - stop_sign
parking_meter bench bird cat dog horse sheep cow elephant bear zebra giraffe - backpack umbrella - - handbag tie
suitcase frisbee skis snowboard sports_ball kite baseball_bat baseball_glove skateboard surfboard tennis_racket bottle -
wine_glass cup fork knife spoon bowl banana apple sandwich orange broccoli carrot hot_dog pizza donut cake chair couch
potted_plant bed - dining_table - - toilet - tv laptop mouse remote keyboard cell_phone microwave oven toaster sink
refrigerator - book clock vase scissors teddy_bear hair_drier toothbrush"""
_VOC = """aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant
sheep sofa train tvmonitor"""
_WAYMO = "vehicle pedestrian cyclist"


def _listed(text: str) -> dict[int, str]:
    return {number: word.replace("_", " ") for number, word in enumerate(text.split(), 1) if word != "-"}


BUILT_IN = {"coco": _listed(_COCO), "voc": _listed(_VOC), "waymo": _listed(_WAYMO)}


def read_label_map(source: str) -> dict[int, str]:
    """Class id -> name, from a YAML file ``id: name``, a text file (line i from 0 names class i + 1), or a known list.

    Raises:
        SpecError: the file names no class, or is not such a mapping.
    """
    if source in BUILT_IN and not Path(source).exists():
        return BUILT_IN[source]
    if Path(source).suffix.lower() not in (".yaml", ".yml"):
        return read_class_map(source)
    import yaml

    try:
        content = yaml.safe_load(read_text(Path(source)))
    except yaml.YAMLError as error:
        raise SpecError(f"not a YAML file: {error}", where=source) from error
    if not isinstance(content, dict) or not content or not all(type(key) is int for key in content):
        raise SpecError("not a mapping of class id to name", where=source, remedy="Write lines like '1: person'.")
    return {class_id: str(name) for class_id, name in content.items()}
