"""How many of a scene's objects the tiny SAM finds by itself."""

import time
from typing import Any

import numpy as np
import numpy.typing as npt
from segment_anything import SamAutomaticMaskGenerator

from stages.sandbox.sam_data import fit
from stages.sandbox.world.layout import Domain
from stages.sandbox.world.world import render

GENERATOR: dict[str, float | int] = {
    "points_per_side": 8,
    "pred_iou_thresh": 0.4,
    "stability_score_thresh": 0.5,
    "stability_score_offset": 0.5,
    "box_nms_thresh": 0.8,
}
"""Settings of SamAutomaticMaskGenerator that suit this SAM, chosen on scenes that nothing else
sees (web, seed 2,000,000); the generator's defaults suit the published SAMs."""

_MIN_OBJECT_PX = 30


def best_ious(
    masks: npt.NDArray[np.bool_], instances: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float64]:
    """For each object of which enough can be seen, the IoU of the mask that fits it best.

    Args:
        masks: (P, H, W).
        instances: (H, W), 0 = no object.

    Returns:
        One value an object; 0 where there are no masks.
    """
    area = np.bincount(instances.ravel())
    objects = 1 + np.flatnonzero(area[1:] >= _MIN_OBJECT_PX)
    truth = (instances.ravel() == objects[:, None]).astype(np.float64)
    found = masks.reshape(len(masks), instances.size).astype(np.float64)
    both = truth @ found.T
    either = truth.sum(axis=1)[:, None] + found.sum(axis=1) - both
    best: npt.NDArray[np.float64] = (both / either).max(axis=1, initial=0)
    return best


def measure(
    model: Any, domain: Domain, seed: int, count: int, **settings: float | int
) -> dict[str, float]:
    """Lets the official generator segment everything in scenes the model has not seen.

    Args:
        model: From `sam_folder.build`.
        domain: Of the scenes.
        seed: Of the scenes; not the one that trained the model.
        count: Number of scenes.
        **settings: Of `SamAutomaticMaskGenerator`, over `GENERATOR`.

    Returns:
        `recall` (share of the objects of 30 px or more that a mask overlaps with an IoU of .5),
        `mean_best_iou` over the same objects, `objects`, and `masks` and `cpu_seconds`
        an image.
    """
    generator = SamAutomaticMaskGenerator(
        model, **{**GENERATOR, "points_per_batch": 64, **settings}
    )
    best, masks, seconds = [], 0, 0.0
    for index in range(count):
        image, instances = fit(render(domain, seed, index), model.image_encoder.img_size)
        began = time.process_time()
        records = generator.generate(image)
        seconds += time.process_time() - began
        masks += len(records)
        found = [record["segmentation"] for record in records]
        best.append(best_ious(np.array(found, dtype=bool).reshape(-1, *instances.shape), instances))
    ious = np.concatenate(best)
    metrics = {"recall": (ious >= 0.5).mean(), "mean_best_iou": ious.mean(), "objects": len(ious)}
    metrics |= {"masks": masks / count, "cpu_seconds": seconds / count}
    return {name: round(float(value), 4) for name, value in metrics.items()}
