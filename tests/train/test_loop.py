import json
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from pipeline import stopping
from stages.train.data.batch import TrainBatch
from stages.train.step.discriminator import Discriminator, FeatureDiscriminator
from stages.train.step.label_sources.base import LabelSource
from stages.train.step.label_sources.ema import EmaSource
from stages.train.step.schedule import learning_rate
from stages.train.step.supervised_losses.cross_entropy import CrossEntropyConfig, CrossEntropyLoss
from tests.train.interruptions import BuildLoop, Draw, Killed, dying_at, run_stopped
from tests.train.training_loops import LoopInFolder

STEPS = 4


def log_of(case: LoopInFolder) -> list[dict[str, float]]:
    """The lines of its log."""
    lines = (case.folder / "log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("sources", [None, [EmaSource(EmaSource.Config(threshold=0.4))]])
@pytest.mark.parametrize("killed_at", [1, 2, 3])
@pytest.mark.parametrize("checkpoint_every", [1, 2])
def test_a_resumed_training_equals_an_undisturbed_one(
    build_loop: BuildLoop,
    draw: Draw,
    sources: list[LabelSource] | None,
    killed_at: int,
    checkpoint_every: int,
) -> None:
    whole = build_loop("whole", sources=sources)
    whole.loop.run(draw)
    killed = build_loop(sources=sources, checkpoint_every=checkpoint_every)
    with pytest.raises(Killed):
        killed.loop.run(dying_at(killed_at, draw))
    torch.manual_seed(99)
    resumed = build_loop(sources=sources, checkpoint_every=checkpoint_every)
    resumed.loop.run(draw)
    start = killed_at // checkpoint_every * checkpoint_every
    assert resumed.shown == [start, *range(start + 1, STEPS + 1)]
    assert all(map(torch.equal, whole.tensors(), resumed.tensors()))
    assert log_of(resumed) == log_of(whole)


@pytest.mark.parametrize("step", range(STEPS))
def test_a_stopped_training_loses_no_step(build_loop: BuildLoop, draw: Draw, step: int) -> None:
    whole = build_loop("whole")
    whole.loop.run(draw)
    stopped = build_loop(checkpoint_every=100)

    with pytest.raises(stopping.Stopped, match=f"^step {step + 1} of {STEPS} is saved$"):
        run_stopped(stopped.loop, step, draw)
    resumed = build_loop(checkpoint_every=100)
    resumed.loop.run(draw)
    assert resumed.shown == [step + 1, *range(step + 2, STEPS + 1)]
    networks = [each.teacher.state_dict().values() for each in (whole, resumed)]
    assert all(map(torch.equal, *networks))
    assert log_of(resumed) == log_of(whole)


def test_a_finished_training_resumes_at_its_end(build_loop: BuildLoop, draw: Draw) -> None:
    first, again = build_loop(), build_loop()
    first.loop.run(draw)
    again.loop.run(draw)
    assert again.shown == [STEPS]
    assert all(map(torch.equal, first.tensors(), again.tensors()))


def test_another_training_starts_from_the_beginning(build_loop: BuildLoop, draw: Draw) -> None:
    build_loop(seed=1, facts={"train.seed": 1}).loop.run(draw)
    other = build_loop(facts={"train.seed": 5})
    other.loop.run(draw)
    alone = build_loop("alone", facts={"train.seed": 5})
    alone.loop.run(draw)
    assert other.shown[0] == 0
    assert all(map(torch.equal, other.tensors(), alone.tensors()))
    assert [line["step"] for line in log_of(other)] == [1, 2, 3, 4]


@pytest.mark.parametrize("content", [None, b"", b"{}\n", b"\xff\xfe garbage", b'{"step": 1}\n{"st'])
def test_the_log_of_a_resumed_training_is_whole_whatever_became_of_the_file(
    build_loop: BuildLoop, draw: Draw, content: bytes | None
) -> None:
    with pytest.raises(Killed):
        build_loop().loop.run(dying_at(2, draw))
    case = build_loop()
    file = case.folder / "log.jsonl"
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    case.loop.run(draw)
    assert [line["step"] for line in log_of(case)] == [1, 2, 3, 4]
    assert all("loss/total" in line for line in log_of(case))


def test_the_teacher_is_frozen_and_differs_from_the_student(
    build_loop: BuildLoop, draw: Draw
) -> None:
    case = build_loop()
    case.loop.run(draw)
    assert not case.teacher.training
    assert not any(parameter.requires_grad for parameter in case.teacher.parameters())
    both = zip(case.student.parameters(), case.teacher.parameters(), strict=True)
    assert any(not torch.equal(one, other) for one, other in both)


def test_the_teacher_is_the_first_student_and_then_the_mean_of_two(
    build_loop: BuildLoop, draw: Draw
) -> None:
    """Both trainings take the same first step: the rate lags."""
    one, two = build_loop("one", steps=1), build_loop("two", steps=2)
    one.loop.run(draw)
    two.loop.run(draw)
    students = [case.student.state_dict() for case in (one, two)]
    for name, own in one.teacher.state_dict().items():
        assert torch.equal(own, students[0][name])
    for name, own in two.teacher.named_parameters():
        torch.testing.assert_close(own, (students[0][name] + students[1][name]) / 2)
        assert not torch.equal(students[0][name], students[1][name])


def test_the_log_holds_every_term_and_the_rate(build_loop: BuildLoop, draw: Draw) -> None:
    case = build_loop(log_every=3)
    case.loop.run(draw)
    lines = log_of(case)
    assert [line["step"] for line in lines] == [3, STEPS]
    losses = ["total", "supervised", "student_unlabeled", "stored_ood_clip"]
    assert list(lines[0]) == ["step", *(f"loss/{name}" for name in losses), "learning_rate"]
    for line in lines:
        terms = [line[f"loss/{name}"] for name in losses[1:]]
        assert line["loss/total"] == pytest.approx(sum(terms) / 3)


def test_the_rate_decays_polynomially_with_the_published_lag(
    build_loop: BuildLoop, draw: Draw
) -> None:
    case = build_loop()
    case.loop.run(draw)
    rates = [line["learning_rate"] for line in log_of(case)]
    assert rates == [learning_rate(0.1, step, STEPS) for step in range(STEPS)]
    assert rates[:2] == [0.1, 0.1]


def test_the_discriminator_takes_a_step_a_step(build_loop: BuildLoop, draw: Draw) -> None:
    discriminator = Discriminator(FeatureDiscriminator(8), weight=0.01, learning_rate=1e-3)
    build_loop(accumulate=2, discriminator=discriminator).loop.run(draw)
    assert {int(state["step"]) for state in discriminator.optimizer.state.values()} == {STEPS}


class Dice(CrossEntropyLoss):
    """Notes a random number each step."""

    def __init__(self) -> None:
        super().__init__(CrossEntropyConfig())
        self.thrown: list[float] = []

    def measure(self, logits: Tensor, mask: Tensor) -> Tensor:
        self.thrown.append(torch.rand(()).item())
        return super().measure(logits, mask)


def test_every_step_has_random_numbers_of_its_own(build_loop: BuildLoop, draw: Draw) -> None:
    dice = {name: Dice() for name in ("whole", "other seed", "resumed")}
    build_loop("whole", supervised_loss=dice["whole"]).loop.run(draw)
    build_loop("other", supervised_loss=dice["other seed"], seed=6).loop.run(draw)
    with pytest.raises(Killed):
        build_loop().loop.run(dying_at(2, draw))
    build_loop(supervised_loss=dice["resumed"]).loop.run(draw)
    first, other = dice["whole"].thrown, dice["other seed"].thrown
    assert len({*first, *other}) == 2 * STEPS
    assert dice["resumed"].thrown == first[2:]


def test_a_training_learns(build_loop: BuildLoop, draw: Draw) -> None:
    """Of stored labels that are the labels of the images' own brightest channel."""

    def bright(steps: range) -> Iterator[TrainBatch]:
        for batch in draw(steps):
            batch.labeled.mask.copy_(batch.labeled.images.argmax(1))
            for part in batch.crops.values():
                part.stored["clip"].mask.copy_(part.weak.argmax(1))
                part.stored["clip"].confidence.fill_(1)
            yield batch

    case = build_loop(steps=25, log_every=25, checkpoint_every=25)
    case.loop.run(bright)
    (batch,) = draw(range(100, 101))
    images = batch.labeled.images
    assert (case.teacher(images).argmax(1) == images.argmax(1)).float().mean() > 0.7
