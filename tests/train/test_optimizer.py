from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.optim import SGD, AdamW

from pipeline.errors import ConfigError
from stages.models.segmenters.networks.base import SegmentationNetwork
from stages.train.config import VariantConfig
from stages.train.data.batch import LabeledBatch, TrainBatch
from stages.train.loop.optimizer import build_optimizer
from tests.models.segmenters.test_base import Blocks
from tests.train.interruptions import BuildLoop, Draw, Killed, dying_at

BuildNetwork = Callable[[], SegmentationNetwork]


def test_the_decoder_moves_at_a_multiple_of_the_encoders_rate(
    build_loop: BuildLoop, draw: Draw
) -> None:
    """Of one step without momentum and decay, from the same weights."""
    moved: dict[float, dict[str, Tensor]] = {}
    for multiplier in (1.0, 10.0):
        case = build_loop(str(multiplier), steps=1, decoder_multiplier=multiplier, weight_decay=0)
        before = {name: p.detach().clone() for name, p in case.student.named_parameters()}
        case.loop.run(draw)
        after = dict(case.student.named_parameters())
        moved[multiplier] = {name: after[name].detach() - p for name, p in before.items()}
    for name, change in moved[1.0].items():
        factor = 1 if name.startswith("encoder.") else 10
        torch.testing.assert_close(moved[10.0][name], factor * change, rtol=1e-3, atol=1e-6)
    for name in ("encoder.0.weight", "classifier.weight"):
        assert moved[1.0][name].abs().sum() > 0


@pytest.mark.parametrize(
    ("name", "kind", "key", "value"),
    [("sgd", SGD, "momentum", 0.9), ("adamw", AdamW, "betas", (0.9, 0.999))],
)
def test_the_optimizer_has_a_group_for_the_encoder_and_one_for_the_rest(
    pixel_network: BuildNetwork,
    variant: Callable[..., VariantConfig],
    name: str,
    kind: type[torch.optim.Optimizer],
    key: str,
    value: object,
) -> None:
    network = pixel_network()
    optimizer = build_optimizer(network, variant(optimizer=name))
    assert isinstance(optimizer, kind)
    encoder, decoder = optimizer.param_groups
    assert [id(p) for p in encoder["params"]] == [id(p) for p in network.encoder.parameters()]
    assert len(encoder["params"]) + len(decoder["params"]) == len(list(network.parameters()))
    assert {group["weight_decay"] for group in optimizer.param_groups} == {1e-4}
    assert {group[key] for group in optimizer.param_groups} == {value}


def test_layer_decay_needs_blocks(
    pixel_network: BuildNetwork, variant: Callable[..., VariantConfig]
) -> None:
    with pytest.raises(ConfigError, match="no transformer blocks") as caught:
        build_optimizer(pixel_network(), variant(layer_decay=0.9))
    assert caught.value.where == "train.layer_decay"


def test_layer_decay_reaches_the_blocks(variant: Callable[..., VariantConfig]) -> None:
    optimizer = build_optimizer(Blocks(), variant(layer_decay=0.5))
    found = {group["multiplier"] for group in optimizer.param_groups}
    assert {1, 0.5, 0.25, 0.125} <= found


def test_a_long_gradient_is_clipped(build_loop: BuildLoop, draw: Draw) -> None:
    """Of one step without momentum and decay: the step is as long as the clipped gradient."""
    keys = {"steps": 1, "weight_decay": 0, "decoder_multiplier": 1, "learning_rate": 1.0}
    lengths = {}
    for norm in (None, 1e-3, 1e3):
        case = build_loop(str(norm), clip_norm=norm, **keys)
        before = [p.detach().clone() for p in case.student.parameters()]
        case.loop.run(draw)
        moved = zip(before, case.student.parameters(), strict=True)
        lengths[norm] = torch.cat([(b - p.detach()).flatten() for b, p in moved]).norm().item()
    assert lengths[1e-3] == pytest.approx(1e-3, rel=1e-2)
    assert lengths[None] == lengths[1e3] > 1e-2


def in_pieces(draw: Draw, pieces: int) -> Draw:
    """The micro-batches of the same images: labeled crops alone."""

    def drawn(micro: range) -> Iterator[TrainBatch]:
        assert micro.start % pieces == micro.stop % pieces == 0
        for batch in draw(range(micro.start // pieces, micro.stop // pieces)):
            images, masks = batch.labeled.images.chunk(pieces), batch.labeled.mask.chunk(pieces)
            for image, mask in zip(images, masks, strict=True):
                yield replace(batch, labeled=LabeledBatch(image, mask), crops={})

    return drawn


def test_micro_batches_add_up_to_the_batch(build_loop: BuildLoop, draw: Draw) -> None:
    """All of one size, without BatchNorm's statistics, which are those of a micro-batch."""
    teachers = {}
    for pieces in (1, 2, 4):
        case = build_loop(str(pieces), accumulate=pieces, sources=[])
        for network in (case.student, case.teacher):
            network.get_submodule("encoder").register_module("1", torch.nn.Identity())
        case.loop.run(in_pieces(draw, pieces))
        teachers[pieces] = case.teacher
        assert len((case.folder / "log.jsonl").read_text().splitlines()) == len(case.shown) - 1
        assert case.shown == [0, 1, 2, 3, 4]
    for pieces in (2, 4):
        pairs = zip(teachers[1].parameters(), teachers[pieces].parameters(), strict=True)
        for one, other in pairs:
            torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_reduced_precision_trains_nearly_the_same_in_float32_weights(
    build_loop: BuildLoop, draw: Draw, precision: str
) -> None:
    exact = build_loop("exact", sources=[])
    reduced = build_loop(precision, precision=precision, sources=[])
    exact.loop.run(in_pieces(draw, 1))
    reduced.loop.run(in_pieces(draw, 1))
    for one, other in zip(exact.teacher.parameters(), reduced.teacher.parameters(), strict=True):
        assert other.dtype == torch.float32
        torch.testing.assert_close(one, other, atol=2e-2, rtol=0)


def test_a_resumed_float16_training_continues_with_its_scale(
    build_loop: BuildLoop, draw: Draw
) -> None:
    with pytest.raises(Killed):
        build_loop(precision="float16").loop.run(dying_at(2, draw))
    saved = build_loop().checkpoint["parts"]["scaler"]
    assert saved["scale"] > 1
    assert saved["_growth_tracker"] == 2
    resumed, whole = build_loop(precision="float16"), build_loop("whole", precision="float16")
    resumed.loop.run(draw)
    whole.loop.run(draw)
    assert all(map(torch.equal, resumed.tensors(), whole.tensors()))
