"""Metrics of the tiny CLIP: dense mIoU, and precision of tags from pooled features."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from stages.sandbox.world.layout import Domain
from stages.sandbox.world.names import NAMES, TARGETS
from stages.sandbox.world.world import render
from tools.sandbox.clip_data import normalised, prompts
from tools.sandbox.clip_folder import dense_embedding

LONG_SIDE_PX = 128
"""Size of the measured images: configs/sandbox.yaml scales images to it before labeling."""


@torch.no_grad()
def name_embeddings(model: Any, tokenize: Any) -> Tensor:
    """A unit vector for each name, the mean over its prompts, (len(NAMES), D)."""
    means = [
        functional.normalize(model.encode_text(tokenize(prompts(name))), dim=-1).mean(dim=0)
        for name in NAMES
    ]
    return functional.normalize(torch.stack(means), dim=-1)


@torch.no_grad()
def measure(model: Any, tokenize: Any, domain: Domain, seed: int, count: int) -> dict[str, float]:
    """Compares every location of new scenes with every name.

    Args:
        model: From `clip_folder.build`.
        tokenize: From `clip_folder.tokenizer`.
        domain: Domain of the scenes.
        seed: Seed of the scenes, other than that of the training.
        count: Number of scenes.

    Returns:
        `miou` over background and targets, `iou_<class>`, `chance_miou` (if every pixel is
        predicted as background), `tag_precision` (share of scenes that show the name nearest to the
        pooled embedding) and `tag_chance` (that share for a random name).
    """
    text = name_embeddings(model, tokenize)
    confusion = np.zeros((len(TARGETS) + 1, len(TARGETS) + 1), dtype=np.int64)
    found, tags = 0, 0
    for index in range(count):
        scene = render(domain, seed, index, long_side_px=LONG_SIDE_PX)
        features = dense_embedding(model, normalised(scene.image)[None])
        scores = torch.einsum("bdhw,nd->bnhw", functional.normalize(features, dim=1), text)
        scores = functional.interpolate(scores, scene.names.shape, mode="bilinear")
        names = scores.argmax(dim=1)[0].numpy()
        predicted = np.where(names < len(TARGETS), names + 1, 0)
        np.add.at(confusion, (scene.classes, predicted), 1)
        nearest = int((text @ features[0].mean(dim=(1, 2))).argmax())
        found, tags = found + (NAMES[nearest] in scene.tags), tags + len(scene.tags)
    truth = confusion.sum(axis=1)
    iou = confusion.diagonal() / (truth + confusion.sum(axis=0) - confusion.diagonal())
    metrics = {f"iou_{name}": iou[i] for i, name in enumerate(("background", *TARGETS))}
    metrics |= {"miou": iou.mean(), "chance_miou": truth[0] / truth.sum() / len(truth)}
    metrics |= {"tag_precision": found / count, "tag_chance": tags / count / len(NAMES)}
    return {name: round(float(value), 4) for name, value in metrics.items()}
