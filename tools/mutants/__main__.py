"""Makes wrong changes to modules, and prints those that no test notices.

Each change is made in a copy of the tree, in a process of its own that runs the module's tests
(`coverage.TESTS`). Survivors with a reason not to be tested are listed in `survivors.yaml`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from tools.mutants.coverage import TESTS
from tools.mutants.mutations import Mutation, mutations
from tools.mutants.trial import Outcome, Trial, preload

ROOT = Path(__file__).parents[2]
SURVIVORS = Path(__file__).with_name("survivors.yaml")


def main() -> None:
    """Exits with 1 if a change survives that is not listed."""
    parser = argparse.ArgumentParser(prog="python -m tools.mutants", description=__doc__)
    parser.add_argument("modules", nargs="*", help="paths from the root; default: all of the table")
    parser.add_argument("--count", type=int, default=10, help="changes of a module (10)")
    parser.add_argument("--seed", type=int, default=0, help="another seed takes other changes (0)")
    parser.add_argument("--list", action="store_true", help="print the changes, and test nothing")
    options = parser.parse_args()
    modules = options.modules or [*TESTS]
    chosen = {path: sampled(path, options.count, options.seed) for path in modules}
    if options.list:
        for path, own in chosen.items():
            for each in own:
                print(f"{path}:{each.line}: {each.change}")
        return
    with TemporaryDirectory(prefix="mutants-") as folder:
        copy_tree(Path(folder))
        sys.exit(run(Path(folder), chosen))


def sampled(path: str, count: int, seed: int) -> list[Mutation]:
    """Changes of a module by chance. An edit elsewhere in the module leaves them as they are."""

    def drawn(each: Mutation) -> bytes:
        return sha256(f"{seed} {path} {each.text} {each.change}".encode()).digest()

    found = mutations((ROOT / path).read_text(encoding="utf-8"))
    return sorted(found, key=drawn)[:count]


def copy_tree(folder: Path) -> None:
    """Copies the files that git knows, as they are now."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())


def run(folder: Path, chosen: Mapping[str, Sequence[Mutation]]) -> int:
    """Tries the changes; prints each new survivor at once, and a table of counts at the end."""
    listed = {(path, each["line"], each["change"]) for path, each in read_survivors()}
    preload()
    counts: Counter[Outcome] = Counter()
    new = 0
    for path, own in chosen.items():
        trial = Trial(folder, path, TESTS[path])
        for mutation in own:
            outcome = trial.of(mutation.source)
            counts[outcome] += 1
            if outcome is Outcome.SURVIVED:
                is_listed = (path, mutation.text, mutation.change) in listed
                new += not is_listed
                word = "listed" if is_listed else "SURVIVED"
                print(f"{word} {path}:{mutation.line}: {mutation.change}", flush=True)
            elif outcome is Outcome.TIMEOUT:
                print(f"timeout {path}:{mutation.line}: {mutation.change}", flush=True)
    summary = ", ".join(f"{counts[outcome]} {outcome.value}" for outcome in Outcome)
    print(f"{counts.total()} changes: {summary}; {new} survivors are not listed")
    return 1 if new else 0


def read_survivors() -> list[tuple[str, dict[str, str]]]:
    """The listed survivors: path, and `line`, `change` and `reason` of each."""
    found = yaml.safe_load(SURVIVORS.read_text(encoding="utf-8")) or {}
    return [(path, each) for path, own in found.items() for each in own]


if __name__ == "__main__":
    main()
