import io

import pytest
from rich.console import Console as RichConsole

from pipeline.progress import ShardProgress, StepProgress


def plain() -> tuple[RichConsole, io.StringIO]:
    out = io.StringIO()
    return RichConsole(file=out, width=200), out


def test_a_pipe_gets_a_line_every_tenth() -> None:
    console, out = plain()
    with ShardProgress(console, "pseudolabel", shards=40, images=160) as progress:
        for _ in range(40):
            progress.advance(images=4)
    lines = out.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("pseudolabel: 4/40 shards, 16/160 images, ")
    assert " images/s, ETA 0:00:0" in lines[0]
    assert lines[-1].startswith("pseudolabel: 40/40 shards, 160/160 images, ")
    assert "ETA" not in lines[-1]


def test_failures_and_waiting_are_reported_at_once() -> None:
    console, out = plain()
    with ShardProgress(console, "propose", shards=40, images=160) as progress:
        progress.watch({})
        progress.watch({})
        progress.watch({"tcp://a": ""})
        progress.fail("shard 3")
    assert out.getvalue().splitlines() == [
        "propose: waits for a worker",
        "propose: 0/40 shards, 0/160 images, 0.0 images/s, 1 failed",
    ]


def test_a_terminal_shows_what_each_worker_does() -> None:
    out = io.StringIO()
    console = RichConsole(file=out, width=100, force_terminal=True)
    with ShardProgress(console, "pseudolabel", shards=4, images=16) as progress:
        progress.watch({"tcp://10.0.0.2:1": "clip shard [3]", "tcp://10.0.0.3:1": ""})
        progress.advance(images=4)
        progress.fail("clip shard 2")
    shown = out.getvalue()
    assert "tcp://10.0.0.2:1  clip shard [3], 0 s" in shown
    assert "tcp://10.0.0.3:1  idle" in shown
    assert "pseudolabel: 1/4 shards, 4/16 images, " in shown
    assert "failed: clip shard 2" in shown


def test_a_training_in_a_pipe_gets_a_line_every_tenth() -> None:
    console, out = plain()
    with StepProgress(console, "train plus seed 0", steps=40, images_a_step=24) as progress:
        progress.begin(0)
        for done in range(1, 41):
            progress.advance(done, loss=1 / done, memory_bytes=1_230_000_000)
    lines = out.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("train plus seed 0: 4/40 steps, loss 0.250, ")
    assert " images/s, ETA 0:00:0" in lines[0]
    assert lines[0].endswith(", 1.2 GB")
    assert lines[-1].startswith("train plus seed 0: 40/40 steps, loss 0.025, ")
    assert "ETA" not in lines[-1]


def test_a_resumed_training_begins_where_it_was() -> None:
    console, out = plain()
    with StepProgress(console, "train", steps=1000, images_a_step=8) as progress:
        progress.begin(950)
        assert progress.line == "950/1000 steps"
        progress.advance(960, loss=0.5, memory_bytes=0)
        assert out.getvalue() == ""
        progress.advance(1000, loss=0.5, memory_bytes=0)
    assert out.getvalue().startswith("train: 1000/1000 steps, loss 0.500, ")


def test_a_terminal_shows_a_bar_of_the_training() -> None:
    out = io.StringIO()
    console = RichConsole(file=out, width=100, force_terminal=True)
    with StepProgress(console, "train", steps=4, images_a_step=8) as progress:
        progress.begin(0)
        progress.advance(1, loss=0.75, memory_bytes=2_000_000_000)
    assert "train: 1/4 steps, loss 0.750, " in out.getvalue()
    assert "2.0 GB" in out.getvalue()
    assert "━" in out.getvalue()


def test_images_inside_shards_count_and_are_told_in_a_pipe_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]
    monkeypatch.setattr("pipeline.progress.time.monotonic", lambda: clock[0])
    console, out = plain()
    with ShardProgress(console, "pseudolabel", shards=2, images=128) as progress:
        for second in range(1, 130):
            clock[0] = float(second)
            progress.watch({"tcp://a": f"clip shard 0, {second // 4} images"}, second // 4)
        assert out.getvalue().splitlines() == [
            "pseudolabel: 0/2 shards, 15/128 images, 0.2 images/s, ETA 0:07:40",
            "pseudolabel: 0/2 shards, 30/128 images, 0.2 images/s, ETA 0:06:39",
        ]
        progress.advance(64)
        assert progress.line.startswith("1/2 shards, 64/128 images, ")
