"""Metrics of the tiny SAM: the share of objects that it finds without prompts."""

import time
from typing import Any

import numpy as np
import numpy.typing as npt
from segment_anything import SamAutomaticMaskGenerator

from stages.sandbox.world.layout import Domain
from stages.sandbox.world.world import render
from tools.sandbox.sam_data import fit

GENERATOR: dict[str, float | int] = {
    "points_per_side": 8,
    "pred_iou_thresh": 0.4,
    "stability_score_thresh": 0.5,
    "stability_score_offset": 0.5,
    "box_nms_thresh": 0.8,
}
"""Settings of SamAutomaticMaskGenerator for this SAM, chosen on scenes that nothing else uses (web,
seed 2,000,000); the generator's defaults are for the published SAMs."""

_MIN_OBJECT_PX = 30


def best_ious(
    masks: npt.NDArray[np.bool_], instances: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float64]:
    """The IoU of the best mask for each object that is large enough.

    Args:
        masks: (P, H, W).
        instances: (H, W), 0 = no object.

    Returns:
        One value for each object; 0 if there are no masks.
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
    """Runs the official mask generator on new scenes.

    Args:
        model: From `sam_network.build`.
        domain: Domain of the scenes.
        seed: Seed of the scenes, other than that of the training.
        count: Number of scenes.
        **settings: Of `SamAutomaticMaskGenerator`; they replace those in `GENERATOR`.

    Returns:
        `recall` (share of the objects of 30 px or more that have a mask with an IoU of .5 or more),
        `mean_best_iou` over the same objects, `objects`, and `masks` and `cpu_seconds` per image.
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
