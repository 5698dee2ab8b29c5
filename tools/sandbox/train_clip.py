"""Trains the tiny CLIP: `python -m tools.sandbox.train_clip`, half an hour on two cores.

First the text encoder learns to distinguish the names, over templates and synonyms. Then it is
frozen, and the image encoder learns to map each location of **web** scenes to the embedding of its
name. It never sees an `id` scene: these are only measured at the end, and no setting is chosen on
them.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args

import numpy as np
import torch
import typer
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

from stages.models.embedded.models import CLIP
from stages.sandbox.world.layout import Domain
from stages.sandbox.world.looks import WEB_MEDIA
from stages.sandbox.world.names import NAMES
from tools.sandbox import clip_folder
from tools.sandbox.clip_data import OBJECTS, WebCrops, prompts, random_caption
from tools.sandbox.clip_metrics import measure
from tools.sandbox.training import learning_rate, log_to, save_checkpoint

SHIPPED = CLIP.folder
WORK = Path("artifacts/sandbox-clip")
TRAINING_SEED, MEASURED_SEED, MEASURED_SCENES = 0, 1_000_000, 300
BATCH_SIZE, LEARNING_RATE, TEXT_STEPS = 32, 2e-3, 400
PAIRS_WEIGHT = 0.1
"""Weight of the loss of captions; the dense loss has weight 1."""
LARGE_CROPS = 0.6
"""Share of the steps after which crops grow from 64 to 96 px."""


def learn_text(model: Any, tokenize: Any, log: Any) -> None:
    """Trains the text encoder: contrast between names, and captions near the names in them."""
    rng = np.random.default_rng(TRAINING_SEED)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    every = [tokenize(prompts(name)) for name in NAMES]
    names = torch.arange(len(NAMES))
    for step in range(TEXT_STEPS):
        pair = [
            functional.normalize(
                model.encode_text(torch.stack([rows[rng.integers(len(rows))] for rows in every])),
                dim=-1,
            )
            for _ in range(2)
        ]
        captions, mentioned = zip(*(random_caption(rng) for _ in range(BATCH_SIZE)), strict=True)
        target = torch.zeros(BATCH_SIZE, len(NAMES))
        for row, positions in enumerate(mentioned):
            target[row, positions] = 1 / len(positions)
        between = functional.normalize(model.encode_text(tokenize(list(captions))), dim=-1)
        similarity = 20 * pair[0] @ pair[1].T
        loss = (
            functional.cross_entropy(similarity, names)
            + functional.cross_entropy(similarity.T, names)
            + functional.cross_entropy(20 * between @ pair[0].T, target)
        )
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        if step % 50 == 0 or step == TEXT_STEPS - 1:
            cosine = (pair[0] @ pair[1].T).detach()
            highest = cosine[~torch.eye(len(NAMES), dtype=torch.bool)].max()
            log(
                stage="text",
                step=step,
                loss=loss.item(),
                highest_cosine_of_two_names=highest.item(),
            )


def crops(step: int, steps: int) -> Iterator[tuple[Tensor, Tensor, list[str]]]:
    """Yields batches from a step on; the same batches after an interruption."""
    large = int(LARGE_CROPS * steps)
    for first, last, size_px in ((0, large, 64), (large, steps, 96)):
        begin = max(first, step)
        if begin < last:
            span = (BATCH_SIZE * begin, BATCH_SIZE * (last - begin))
            yield from DataLoader(
                WebCrops(TRAINING_SEED, *span, size_px), BATCH_SIZE, num_workers=1
            )


def image_loss(
    model: Any, bank: Tensor, tokenize: Any, images: Tensor, names: Tensor, captions: list[str]
) -> tuple[Tensor, Tensor]:
    """Losses of names at each location, and of captions with pooled embeddings.

    Args:
        model: The CLIP.
        bank: (len(NAMES), D) unit embeddings, one prompt for each name.
        tokenize: Its tokenizer.
        images: (B, 3, S, S).
        names: (B, S/4, S/4) int64.
        captions: B captions.

    Returns:
        The dense cross-entropy, in which objects have weight 2; CLIP's contrastive loss.
    """
    scale = model.logit_scale.exp().clamp(max=100)
    with torch.autocast("cpu", torch.bfloat16):  # not the losses: logits need float32
        features = clip_folder.dense_embedding(model, images).float()
    scores = torch.einsum("bdhw,nd->bnhw", functional.normalize(features, dim=1), bank)
    scores = functional.interpolate(scale * scores, names.shape[1:], mode="bilinear")
    weight = torch.where(torch.arange(len(NAMES)) < OBJECTS, 2.0, 1.0)
    dense = functional.cross_entropy(scores, names, weight)

    with torch.no_grad():
        text = functional.normalize(model.encode_text(tokenize(captions)), dim=-1)
    pooled = functional.normalize(features.mean(dim=(2, 3)), dim=-1)
    similarity, same = scale * pooled @ text.T, torch.arange(len(text))
    pairs = functional.cross_entropy(similarity, same) + functional.cross_entropy(
        similarity.T, same
    )
    return dense, pairs / 2


def learn_images(model: Any, tokenize: Any, checkpoint: Path, steps: int, log: Any) -> None:
    """Trains the image encoder with the frozen text encoder, from the checkpoint on."""
    learning = [*model.visual.parameters(), model.logit_scale]
    optimizer = torch.optim.AdamW(learning, lr=LEARNING_RATE, weight_decay=0.05)
    state = torch.load(checkpoint, weights_only=True)
    model.load_state_dict(state["model"])
    if state["step"]:
        optimizer.load_state_dict(state["optimizer"])
    model.requires_grad_(False)
    for parameter in learning:
        parameter.requires_grad_(True)
    with torch.no_grad():
        rows = [
            functional.normalize(model.encode_text(tokenize(prompts(n))), dim=-1) for n in NAMES
        ]
    for step, batch in enumerate(crops(state["step"], steps), start=state["step"]):
        rng = np.random.default_rng([TRAINING_SEED, step])
        bank = torch.stack([row[rng.integers(len(row))] for row in rows])
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(LEARNING_RATE, step, steps)
        dense, pairs = image_loss(model, bank, tokenize, *batch)
        optimizer.zero_grad()
        torch.autograd.backward(dense + PAIRS_WEIGHT * pairs)
        optimizer.step()
        if (step + 1) % 100 == 0 or step + 1 == steps:
            log(stage="images", step=step + 1, dense_loss=dense.item(), pairs_loss=pairs.item())
            save_checkpoint(checkpoint, model, step + 1, optimizer.state_dict())


def main(
    out: Annotated[Path, typer.Option(help="Folder for checkpoint and log.")] = WORK,
    export: Annotated[Path, typer.Option(help="Folder for the trained CLIP.")] = SHIPPED,
    steps: Annotated[int, typer.Option(help="Steps of 32 crops.")] = 5000,
) -> None:
    """Trains the tiny CLIP. After an interruption, run it again to resume."""
    torch.manual_seed(TRAINING_SEED)
    texts = [text for name in NAMES for text in prompts(name)]
    words = " ".join([*texts, *(medium.word for medium in WEB_MEDIA), "and", "with"]).split()
    clip_folder.start(out, words)
    model, tokenize = clip_folder.build(out), clip_folder.tokenizer(out)
    model.train().to(memory_format=torch.channels_last)
    log = log_to(out / "log.jsonl")

    checkpoint = out / "checkpoint.pt"
    if not checkpoint.exists():
        learn_text(model, tokenize, log)
        save_checkpoint(checkpoint, model, 0, {})
    learn_images(model, tokenize, checkpoint, steps, log)

    clip_folder.start(export, words)
    clip_folder.save(model, export)
    shutil.copy(out / "log.jsonl", export / "training_log.jsonl")
    model = clip_folder.build(export)
    metrics: dict[str, object] = {"steps": steps, "seed": MEASURED_SEED, "scenes": MEASURED_SCENES}
    for domain in get_args(Domain):
        metrics[domain] = measure(model, tokenize, domain, MEASURED_SEED, MEASURED_SCENES)
    (export / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
