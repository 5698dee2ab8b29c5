"""Trains the tiny SAM: `python -m tools.sandbox.train_sam`, half an hour on two cores.

First only the image encoder learns which locations of **web** scenes belong to the same segment;
then the whole SAM learns to predict the segments of points and boxes. It never sees an `id` scene:
these are only measured at the end, and no setting is chosen on them.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args

import torch
import typer
from segment_anything.modeling.transformer import Attention
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from stages.models.embedded import sam_network
from stages.models.embedded.models import SAM
from stages.sandbox.world.layout import Domain
from tools.sandbox import sam_folder
from tools.sandbox.sam_data import PADDING, Prompts, WebPrompts
from tools.sandbox.sam_metrics import GENERATOR, measure
from tools.sandbox.training import learning_rate, log_to, save_checkpoint

SHIPPED = SAM.folder
WORK = Path("artifacts/sandbox-sam")
TRAINING_SEED, MEASURED_SEED, MEASURED_SCENES = 0, 1_000_000, 300
BATCH_SIZE, POINTS, BOXES = 8, 6, 2
LEARNING_RATE = 1.5e-3
AFFINITY_SHARE = 0.1
"""Share of the steps that train only the encoder."""
LOCATIONS = 256
"""Number of locations of an image that are compared with each other."""
SAVE_EVERY = 100
"""Steps between checkpoints and between lines of the log."""


def start_from_identity(model: Any) -> None:
    """Initialises all projections of attention as the identity.

    From the first step, a point then attends to the locations near it, and a location to the
    prompts that resemble it; random projections need hundreds of steps to learn this.
    """
    transformer = model.mask_decoder.transformer
    for attention in (part for part in transformer.modules() if isinstance(part, Attention)):
        for linear in attention.children():
            nn.init.eye_(linear.weight)
            nn.init.zeros_(linear.bias)
    prompts = model.prompt_encoder
    for kind in (*prompts.point_embeddings, prompts.not_a_point_embed, prompts.no_mask_embed):
        nn.init.normal_(kind.weight, std=0.5)  # larger values would outweigh the position's


class Affinity(nn.Module):
    """Loss for pairs of locations: does the cosine of their embeddings say if a segment is shared?

    It has two learned scalars, trains the encoder and is not part of SAM.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.bias = nn.Parameter(torch.tensor(5.0)), nn.Parameter(torch.tensor(-2.5))

    def forward(self, embedding: Tensor, segments: Tensor) -> Tensor:
        """Cross-entropy over pairs of locations; equal and different pairs have equal weight.

        Args:
            embedding: (B, C, S/8, S/8).
            segments: (B, S, S) uint8.

        Returns:
            The loss, a scalar.
        """
        stride = segments.shape[-1] // embedding.shape[-1]
        labels = segments[:, stride // 2 :: stride, stride // 2 :: stride].flatten(1)
        vectors = functional.normalize(embedding, dim=1).flatten(2)
        picked = torch.randint(labels.shape[1], (len(labels), LOCATIONS))
        labels = labels.gather(1, picked)
        vectors = vectors.gather(2, picked[:, None].expand(-1, vectors.shape[1], -1))
        score = self.scale * vectors.transpose(1, 2) @ vectors + self.bias
        valid = (labels != PADDING)[:, :, None] & (labels != PADDING)[:, None]
        same = labels[:, :, None] == labels[:, None]
        loss = functional.binary_cross_entropy_with_logits(score, same.float(), reduction="none")
        return (loss[valid & same].mean() + loss[valid & ~same].mean()) / 2


def answers(model: Any, embedding: Tensor, batch: Prompts) -> tuple[Tensor, Tensor]:
    """Predicts masks for all prompts of a batch at once.

    A point has a padding point and a box has two corners, so both are two tokens. The decoder takes
    one image for all prompts and adds it to each prompt's dense embedding; so that prompts can have
    different images, the image is zero here and the embeddings of images are dense prompts.

    Args:
        model: The SAM.
        embedding: (B, C, S/8, S/8) of the images.
        batch: P points and Q boxes for each image.

    Returns:
        Mask logits (B * (P + Q), 4, S/2, S/2), the first for the single mask; predicted
        IoUs (B * (P + Q), 4).
    """
    points = batch.points.flatten(0, 1)[:, None]
    labels = torch.ones(points.shape[:2])
    of_points, _ = model.prompt_encoder(points=(points, labels), boxes=None, masks=None)
    of_boxes, no_mask = model.prompt_encoder(
        points=None, boxes=batch.boxes.flatten(0, 1), masks=None
    )
    images = len(batch.image)
    sparse = torch.cat(
        [one.unflatten(0, (images, -1)) for one in (of_points, of_boxes)], dim=1
    ).flatten(0, 1)
    dense = (embedding + no_mask[:1]).repeat_interleave(len(sparse) // images, dim=0)
    positions = model.prompt_encoder.get_dense_pe()
    with torch.autocast("cpu", torch.bfloat16):
        masks, ious = model.mask_decoder.predict_masks(
            image_embeddings=torch.zeros_like(embedding[:1]),
            image_pe=positions,  # computed in float32: in bfloat16 it is off by some pixels
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
        )
    return masks, ious


def mask_loss(logits: Tensor, ious: Tensor, target: Tensor, valid: Tensor) -> dict[str, Tensor]:
    """SAM's loss (Kirillov et al. 2023, appendix A), with cross-entropy instead of focal loss.

    Args:
        logits: (N, 4, H, W), the single mask first.
        ious: (N, 4), as predicted.
        target: (N, H, W) bool.
        valid: (N, H, W) bool, False in the padding.

    Returns:
        `single`, for the single mask; `multiple`, for the three others: half their mean and half
        the lowest of them, because few points here are ambiguous; `iou`, the squared error of the
        predicted IoU.
    """
    inside = valid[:, None].float()
    truth = (target & valid)[:, None].float()
    logits = logits.float()
    entropy = functional.binary_cross_entropy_with_logits(
        logits, truth.expand_as(logits), reduction="none"
    )
    entropy = (entropy * inside).sum(dim=(2, 3)) / inside.sum(dim=(2, 3))
    chance = logits.sigmoid() * inside
    both, either = (chance * truth).sum(dim=(2, 3)), (chance + truth).sum(dim=(2, 3))
    loss = 4 * entropy + 1 - (2 * both + 1) / (either + 1)
    with torch.no_grad():
        hard = (logits > 0) * inside
        overlap = (hard * truth).sum(dim=(2, 3))
        actual = overlap / ((hard + truth).sum(dim=(2, 3)) - overlap).clamp(min=1)
    others = loss[:, 1:]
    return {
        "single": loss[:, 0].mean(),
        "multiple": (others.amin(dim=1).mean() + others.mean()) / 2,
        "iou": functional.mse_loss(ious.float(), actual),
    }


def batches(model: Any, step: int, steps: int) -> Iterator[Prompts]:
    """Yields batches from a step on; the same batches after an interruption."""
    span = (BATCH_SIZE * step, BATCH_SIZE * (steps - step))
    data = WebPrompts(model, TRAINING_SEED, *span, POINTS, BOXES)
    yield from DataLoader(data, BATCH_SIZE, num_workers=1)


def losses(
    model: Any, affinity: Affinity, batch: Prompts, *, with_prompts: bool
) -> dict[str, Tensor]:
    """The loss terms of one step; those of `mask_loss` only with `with_prompts`."""
    with torch.autocast("cpu", torch.bfloat16):
        embedding = model.image_encoder(batch.image.contiguous(memory_format=torch.channels_last))
    embedding = embedding.float()
    terms = {"affinity": affinity(embedding, batch.segments)}
    if with_prompts:
        logits, ious = answers(model, embedding, batch)
        stride = batch.segments.shape[-1] // logits.shape[-1]
        segments = batch.segments[:, None, ::stride, ::stride]
        target = (segments == batch.wanted[:, :, None, None]).flatten(0, 1)
        valid = (segments != PADDING).expand(-1, batch.wanted.shape[1], -1, -1).flatten(0, 1)
        terms |= mask_loss(logits, ious, target, valid)
    return terms


def learn(model: Any, checkpoint: Path, steps: int, log: Any) -> None:
    """Trains from the checkpoint on, or from the first step."""
    affinity = Affinity()
    learning = nn.ModuleList([model, affinity])
    optimizer = torch.optim.AdamW(learning.parameters(), lr=LEARNING_RATE, weight_decay=0.05)
    begin = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        learning.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        begin = state["step"]
    encoder_only, sums = int(AFFINITY_SHARE * steps), Counter[str]()
    for step, batch in enumerate(batches(model, begin, steps), start=begin):
        torch.manual_seed(step)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(LEARNING_RATE, step, steps)
        terms = losses(model, affinity, batch, with_prompts=step >= encoder_only)
        optimizer.zero_grad()
        torch.autograd.backward(torch.stack(list(terms.values())).sum())
        nn.utils.clip_grad_norm_(learning.parameters(), 1.0)
        optimizer.step()
        sums.update({name: term.item() for name, term in terms.items()} | {"steps": 1})
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            save_checkpoint(checkpoint, learning, step + 1, optimizer.state_dict())
            log(step=step + 1, **{name: round(sums[name] / sums["steps"], 4) for name in terms})
            sums.clear()


def main(
    out: Annotated[Path, typer.Option(help="Folder for checkpoint and log.")] = WORK,
    export: Annotated[Path, typer.Option(help="Folder for the trained SAM.")] = SHIPPED,
    steps: Annotated[int, typer.Option(help="Steps of 8 scenes.")] = 3000,
    scenes: Annotated[int, typer.Option(help="Scenes to measure on.")] = MEASURED_SCENES,
) -> None:
    """Trains the tiny SAM. After an interruption, run it again to resume."""
    torch.manual_seed(TRAINING_SEED)
    sam_folder.start(out)
    model = sam_network.build(out).train()
    start_from_identity(model)
    model.image_encoder.to(memory_format=torch.channels_last)
    log = log_to(out / "log.jsonl")

    learn(model, out / "checkpoint.pt", steps, log)

    sam_folder.start(export)
    sam_folder.save(model, export)
    shutil.copy(out / "log.jsonl", export / "training_log.jsonl")
    model = sam_network.build(export)
    metrics: dict[str, object] = {"steps": steps, "seed": MEASURED_SEED, "scenes": scenes}
    metrics["generator"] = GENERATOR
    for domain in get_args(Domain):
        metrics[domain] = measure(model, domain, MEASURED_SEED, scenes)
    (export / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
