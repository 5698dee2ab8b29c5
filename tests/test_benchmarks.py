import json
import subprocess
import sys
from pathlib import Path

RULES = ["dense_clip", "sam_clip paint", "sam_clip soft, share 0.3, power 2"]


def test_labels_are_scored_by_every_rule_with_the_configs_keys(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    options = ["--count", "3", "--seed", "2000000", "--share", "0.3", "--json", str(path)]
    keys = ["propose.points_per_side=6", "pseudolabel.labelers.sam_clip.power=2"]
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
