"""Files of Mask R-CNN inference: annotated pictures, and COCO-like lists of masks."""

from __future__ import annotations

import json

from nvidia_tao_deploy.data.image import decode
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.files import write_text
from nvidia_tao_deploy.metrics.coco_masks import encode_part
from nvidia_tao_deploy.predictions.detection_writer import DetectionWriter, save_picture
from nvidia_tao_deploy.predictions.drawing import draw_box, draw_mask
from nvidia_tao_deploy.predictions.masks import RoiMaskDetections
from nvidia_tao_deploy.predictions.types import Detections

ALPHA = 102  # 0.4 of 255


class MaskWriter(DetectionWriter):
    """Writes ``labels/<stem>.json`` and ``images_annotated/<name>`` for each sample.

    A list of {area, bbox, category_id, id, image_id, is_crowd, score, segmentation}: bbox x, y, width, height in source
    pixels, area of the mask, id the position among the image's detections, image_id the image's path.
    """

    def write(self, sample: Sample, prediction: Detections) -> None:
        """Write this sample's list and picture."""
        from PIL import Image
        from pycocotools import mask as coco

        assert isinstance(prediction, RoiMaskDetections)
        kept = self._kept(prediction)
        found = prediction[kept]
        picture = Image.fromarray(decode(sample.path))
        rows = []
        columns = (kept, found.class_ids, found.scores, found.boxes_xyxy)
        for number, class_id, score, box, pasted in zip(
            *(column.tolist() for column in columns), found.pasted(), strict=True
        ):
            code = encode_part(pasted.part, pasted.corner, found.size)
            rows.append(
                {
                    "area": int(coco.area(code)),
                    "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                    "category_id": class_id,
                    "id": number,
                    "image_id": str(sample.path),
                    "is_crowd": 0,
                    "score": score,
                    "segmentation": {"counts": code["counts"].decode(), "size": code["size"]},
                }
            )
            name, (left, top) = self._names[class_id], pasted.corner
            color = self._colors[class_id]
            assert color is not None
            area = (left, top, left + pasted.part.shape[1], top + pasted.part.shape[0])
            if pasted.part.size:
                part = picture.crop(area)
                draw_mask(part, pasted.part, color, ALPHA)
                picture.paste(part, area)
            draw_box(picture, box, f"{name}: {score:.2f}", color)
        text = json.dumps(rows, indent=4, sort_keys=True)
        write_text(self.labels_dir / self._paths(sample.path, ".json"), f"{text}\n")
        save_picture(picture, self.images_dir / self._paths(sample.path, ""))
