import json
import subprocess
import sys
from pathlib import Path

import pytest

RULES = ["dense_clip", "sam_clip", "both", "sam_clip paint", "sam_clip soft, share 0.3, power 2"]


def test_labels_are_scored_by_every_rule_with_the_configs_keys(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    options = ["--count", "3", "--seed", "2000000", "--share", "0.3", "--json", str(path)]
    both = "{name: ensemble, members: [dense_clip, sam_clip], rule: agreement}"
    keys = ["propose.points_per_side=6", "pseudolabel.labelers.sam_clip.power=2"]
    keys.append(f"pseudolabel.labelers.both={both}")
    sets = [part for key in keys for part in ("--set", key)]
    command = [sys.executable, "-m", "benchmarks.labels", *options, *sets]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(path.read_text())
    assert (found["seed"], found["count"], found["domain"]) == (2_000_000, 3, "web")
    assert list(found["scores"]) == RULES
    for rule, scores in found["scores"].items():
        assert f"│ {scores['miou']:.4f} │" in done.stdout, rule
        assert 0 < scores["miou"] < scores["pixel_accuracy"] < 1


def test_proposals_are_timed_against_the_official_generators(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    options = ["--images", "2", "--points-per-side", "5", "--device", "cpu", "--json", str(path)]
    command = [sys.executable, "-m", "benchmarks.propose", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(path.read_text())["figures"]
    assert list(figures) == ["official", "exact", "fast"]
    for name, own in figures.items():
        assert own["masks"] > 1
        assert own["seconds"] > 0
        # So few points are all asked about: fast may at most lose a mask to its first look.
        assert own["mean_iou"] > (0.9 if name == "fast" else 0.999)


def test_a_folder_of_too_few_photos_is_one_line(tmp_path: Path) -> None:
    options = ["--folder", str(tmp_path), "--images", "2"]
    command = [sys.executable, "-m", "benchmarks.propose", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"error: {tmp_path}: 0 files, not 2; lower --images\n"


@pytest.mark.slow
def test_stage_one_is_held_against_its_models(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    options = ["--images", "2", "--points-per-side", "4", "--device", "cpu", "--json", str(path)]
    command = [sys.executable, "-m", "benchmarks.pseudolabel", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(path.read_text())["figures"]
    scratch = figures["from scratch, over its forwards"]
    forwards = [figures[f"forwards of {model}"] for model in ("SAM", "CLIP")]
    for key in ("seconds", "CPU seconds"):
        assert all(0 < own[key] < scratch[key] for own in forwards)
    ratio = scratch["CPU seconds"] / sum(own["CPU seconds"] for own in forwards)
    assert abs(scratch["CPU ratio"] / ratio - 1) < 1e-6
    changed = figures["another class list, times faster"]
    faster = scratch["CPU seconds"] / changed["CPU seconds"]
    assert abs(changed["CPU ratio"] / faster - 1) < 1e-6


@pytest.mark.slow
def test_training_is_held_against_the_published_loader_and_its_own_passes(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    options = ["--images", "6", "--batch-size", "2", "--steps", "1", "--repeats", "1"]
    options += ["--device", "cpu", "--json", str(path)]
    command = [sys.executable, "-m", "benchmarks.train", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(path.read_text())
    # Other crops differ by about 1, by the definition of normalized pixels.
    assert 0 < found["difference"] < 0.2
    data, step = found["figures"]["data"], found["figures"]["step"]
    published = data["published"]["samples_per_cpu_second"]
    for own in data.values():
        assert abs(own["samples_per_cpu_second"] / published / own["cpu_ratio"] - 1) < 1e-6
    passes = step["forwards without gradient"], step["forwards and backwards"]
    for key in ("seconds", "cpu_seconds"):
        assert all(own[key] > 0 for own in passes)
        assert abs(step["all of them"][key] / sum(own[key] for own in passes) - 1) < 1e-6
    ratio = step["step"]["cpu_seconds"] / step["all of them"]["cpu_seconds"]
    assert abs(step["step"]["cpu_ratio"] / ratio - 1) < 1e-6


def test_photos_without_masks_are_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.train", "--folder", str(tmp_path), "--images", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"error: {tmp_path}: 0 images with masks, not 3; lower --images\n"


def test_the_engine_is_measured_with_finished_trainings() -> None:
    options = ["--images", "130", "--trainings", "0", "--trainings", "6", "--labeled", "0"]
    command = [sys.executable, "-m", "benchmarks.engine", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split("│")[1:4] for line in done.stdout.splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["130", "0", "3"],
        ["130", "6", "3"],
    ]
