"""How well the tiny CLIP knows the world: dense mIoU, and tags found by pooled features."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from stages.sandbox.clip_data import normalised, prompts
from stages.sandbox.clip_folder import dense_embedding
from stages.sandbox.world.layout import Domain
from stages.sandbox.world.names import NAMES, TARGETS
from stages.sandbox.world.world import render

LONG_SIDE_PX = 128
"""Of the measured images: what the sandbox's config scales images to before they are labeled."""


@torch.no_grad()
def name_embeddings(model: Any, tokenize: Any) -> Tensor:
    """One unit vector a name, the mean over its prompts, (len(NAMES), D)."""
    means = [
        functional.normalize(model.encode_text(tokenize(prompts(name))), dim=-1).mean(dim=0)
        for name in NAMES
    ]
    return functional.normalize(torch.stack(means), dim=-1)


@torch.no_grad()
def measure(model: Any, tokenize: Any, domain: Domain, seed: int, count: int) -> dict[str, float]:
    """Asks the model for every name in every pixel of scenes it has not seen.

    Args:
        model: From `clip_folder.build`.
        tokenize: From `clip_folder.tokenizer`.
        domain: Of the scenes.
        seed: Of the scenes; not the one that trained the model.
        count: Number of scenes.

    Returns:
        `miou` over background and targets, `iou_<class>`, `chance_miou` (every pixel of every
        scene called background), `tag_precision` (the name nearest to the pooled embedding can be
        seen) and `tag_chance` (any name can).
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
