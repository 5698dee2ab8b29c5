"""Who may import whom, from the syntax trees."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stages.graph import GRAPH
from tests.repository import ROOT, present

STAGES = [kind.__module__.split(".")[1] for kind in GRAPH]
SHARED = ["models", "labels"]  # what several stages build on; they import no stage
EXITS = ["predict", "export"]  # what leads out of a run; no stage imports them
ENTRANCES = ["init", "corrections"]  # lead into a run, and may know all that it is made of
ORDER = [*SHARED, *STAGES, *EXITS, *ENTRANCES]


def dotted(path: Path) -> str:
    """The name of a module or package."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


PACKAGES = ("pipeline", "stages", "maskmill")
"""Each may import those before it."""
SOURCES = [path for package in PACKAGES for path in present(f"{package}/**/*.py")]
MODULES = {dotted(path): path for path in SOURCES}
FAMILIES = sorted(path.parent for path in SOURCES if path.name == "base.py")
COMPONENTS = [
    family
    for family in FAMILIES
    if "pipeline.config.components" in (family / "base.py").read_text()
]
NO_CONFIG_NO_FILES = [
    *present("stages/models/segmenters/networks/*.py"),
    ROOT / "stages/models/segmenters/normalization.py",
    *(
        ROOT / f"stages/train/{name}.py"
        for name in ("step/pasting", "step/losses", "step/schedule", "data/geometry", "data/colors")
    ),
]


def imported(path: Path, *, at_once: bool = False) -> set[str]:
    """Modules that a file imports, `at_once`: when it is imported itself."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in at_import(tree.body) if at_once else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, f"{path}:{node.lineno} is relative"
            assert node.level == 0, f"{path}:{node.lineno} is relative"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {node.module} | (names & MODULES.keys())
    return found


def at_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run when a module is imported; TYPE_CHECKING blocks do not."""
    for node in body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        if isinstance(node, ast.If | ast.Try | ast.With | ast.ClassDef):
            yield from at_import(node.body)


def stage_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "stages" and len(parts) > 1 else None


def test_what_counts_as_an_import(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(
        "import json, numpy.typing\n"
        "from pipeline.config import config as c\n"
        "from pipeline.errors import DataError\n"
        "if TYPE_CHECKING:\n    import torch\n"
        "try:\n    import zarr\nexcept ImportError:\n    pass\n"
        "def work():\n    from stages.ingest import scan\n"
    )
    config = {"pipeline.config", "pipeline.config.config"}
    at_once = {"json", "numpy.typing", *config, "pipeline.errors", "zarr"}
    assert imported(path, at_once=True) == at_once
    assert imported(path) == at_once | {"torch", "stages.ingest", "stages.ingest.scan"}


def test_every_stage_package_is_in_the_graph() -> None:
    packages = {path.parent.name for path in present("stages/*/__init__.py")}
    assert packages == {*ORDER}
    assert [kind.name for kind in GRAPH] == STAGES


def test_packages_import_only_earlier_ones() -> None:
    for number, package in enumerate(PACKAGES):
        for path in present(f"{package}/**/*.py"):
            wrong = [name for name in imported(path) if name.startswith(PACKAGES[number + 1 :])]
            assert not wrong, f"{path} imports {wrong}"


def test_only_the_public_face_imports_the_graph() -> None:
    for path in SOURCES:
        if path.relative_to(ROOT).parts[0] != "maskmill":
            assert "stages.graph" not in imported(path), path


@pytest.mark.parametrize("stage", ORDER)
def test_a_stage_imports_only_earlier_ones(stage: str) -> None:
    later = set(ORDER[ORDER.index(stage) + 1 :])
    for path in present(f"stages/{stage}/**/*.py"):
        wrong = {name for name in imported(path) if stage_of(name) in later}
        assert not wrong, f"{path} imports {wrong}"


@pytest.mark.parametrize("stage", [*STAGES, *EXITS])
def test_of_another_stage_only_its_handover_is_imported(stage: str) -> None:
    """Its output, its config, and the base of a family; so no stage builds another's object."""
    bases = {f"{dotted(family)}.base" for family in COMPONENTS}
    for path in present(f"stages/{stage}/**/*.py"):
        for name in imported(path):
            other = stage_of(name)
            if other in STAGES and other != stage and name in MODULES:
                handover = {f"stages.{other}", f"stages.{other}.output", f"stages.{other}.config"}
                assert name in handover | bases, f"{path} imports {name}"


def test_the_rooms_of_the_pipeline_import_one_way() -> None:
    """Files know nothing of configs, configs nothing of records and images, nothing an engine."""
    below = {
        "files": {"files"},
        "config": {"files", "config"},
        "images": {"files", "config", "images"},
        "records": {"files", "config", "records"},
        "engine": {"files", "config", "images", "records", "engine"},
    }
    rooms = {path.parent.name for path in present("pipeline/*/__init__.py")}
    assert rooms == below.keys()
    for room, allowed in below.items():
        for path in present(f"pipeline/{room}/*.py"):
            for name in imported(path) & MODULES.keys():
                parts = name.split(".")
                wrong = parts[0] == "pipeline" and len(parts) > 2 and parts[1] not in allowed
                assert not wrong, f"{path} imports {name}"


def test_the_rooms_of_train_import_one_way() -> None:
    """Data < step < records < loop; only the stage opens the loop, and none of them the stage."""
    rooms = ["data", "step", "records", "loop"]
    packages = {path.parent.name for path in present("stages/train/*/__init__.py")}
    assert packages == {*rooms, "presets"}
    for number, room in enumerate(rooms):
        later = tuple(f"stages.train.{name}" for name in [*rooms[number + 1 :], "stage"])
        for path in present(f"stages/train/{room}/**/*.py"):
            wrong = [name for name in imported(path) if name.startswith(later)]
            assert not wrong, f"{path} imports {wrong}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Imports inside functions and for type checking count too."""
    graph = {
        module: {name for name in imported(path) if name in MODULES and name != module}
        for module, path in MODULES.items()
        if path.name != "__init__.py"
    }
    done: set[str] = set()

    def visit(module: str, way: list[str]) -> None:
        assert module not in way, f"circle: {' -> '.join([*way[way.index(module) :], module])}"
        if module not in done and module in graph:
            for name in sorted(graph[module]):
                visit(name, [*way, module])
            done.add(module)

    for module in graph:
        visit(module, [])


@pytest.mark.parametrize("family", FAMILIES, ids=dotted)
def test_siblings_never_import_each_other(family: Path) -> None:
    package = dotted(family)
    for path in family.glob("*.py"):
        siblings = {name for name in imported(path) if name.startswith(f"{package}.")}
        shared = {name for name in siblings if name.rpartition(".")[2].startswith("_")}
        assert siblings <= {f"{package}.base"} | shared, path


def test_networks_mixing_and_losses_know_no_config_file_or_stage() -> None:
    rooms = ("pipeline.config.config", "pipeline.records.", "pipeline.images.")
    for path in NO_CONFIG_NO_FILES:
        for name in imported(path):
            assert not name.startswith(rooms), path
            assert not name.endswith((".stage", ".config")), path


def test_stages_and_components_import_torch_inside_methods() -> None:
    heavy = {"torch", "torchvision", "open_clip", "timm", "segmentation_models_pytorch"}
    for path in SOURCES:
        if path.name == "stage.py" or path.parent in COMPONENTS:
            roots = {name.partition(".")[0] for name in imported(path, at_once=True)}
            assert not roots & heavy, path


def test_a_package_is_a_docstring() -> None:
    for path in SOURCES:
        if path.name == "__init__.py":
            tree = ast.parse(path.read_text(encoding="utf-8"))
            is_public = path == ROOT / "maskmill/__init__.py"
            assert len(tree.body) == 1 or is_public, path
            assert ast.get_docstring(tree), path


def test_every_folder_of_sources_is_a_package() -> None:
    for path in SOURCES:
        assert (path.parent / "__init__.py").exists(), path


LIGHTLY = """
import sys

class Refuse:
    def find_spec(self, name, *_):
        root = name.partition(".")[0]
        assert root not in {"torch", "pandas", "PIL", "zarr", "distributed"}, f"imports {root}"

sys.meta_path.insert(0, Refuse())
sys.argv[0] = "maskmill"
from maskmill.cli.main import main
main()
"""
RUN = "from maskmill.cli.main import main\nmain()"


def maskmill(program: str, *arguments: str) -> str:
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_status_and_runs_with_nothing_to_do_import_nothing_heavy(tmp_path: Path) -> None:
    options = ["--set", f"workspace={tmp_path}"]
    for role in ("labeled", "unlabeled", "ood", "val", "test"):
        options += ["--set", f"sandbox.{role}=2"]
    before = json.loads(maskmill(LIGHTLY, "status", "--json", *options))
    assert {stage["state"] for stage in before["stages"]} == {"missing"}
    maskmill(RUN, "run", "ingest", *options)
    after = json.loads(maskmill(LIGHTLY, "status", "--json", *options))
    states = {stage["name"]: stage["state"] for stage in after["stages"]}
    assert [name for name, state in states.items() if state == "fresh"] == ["sandbox", "ingest"]
    assert {*states.values()} == {"fresh", "missing"}
    maskmill(LIGHTLY, "run", "ingest", *options)


LIGHTEST = """
import sys
from importlib.abc import MetaPathFinder

class Refuse(MetaPathFinder):
    def find_spec(self, name, *_):
        root = name.partition(".")[0]
        assert root not in {"numpy", "pyarrow", "rich", "yaml"}, f"imports {root}"

sys.meta_path.insert(0, Refuse())
sys.argv[0] = "maskmill"
from maskmill.cli.main import main
main()
"""


def test_help_imports_no_stages_and_libraries() -> None:
    assert "pseudolabel" not in maskmill(LIGHTEST, "--help")
    assert "--rerun" in maskmill(LIGHTEST, "verify", "--help")
    assert maskmill(LIGHTEST, "--version").startswith("maskmill ")


def test_stages_and_components_load_without_torch() -> None:
    names = [
        name
        for name, path in MODULES.items()
        if path.name == "stage.py" or (path.parent in COMPONENTS and path.name != "__init__.py")
    ]
    names += [name for name in MODULES if name.endswith(".task")]  # sent to workers
    program = f"import sys\nimport {', '.join(names)}\nprint('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout == "False\n", done.stderr


def test_files_of_a_workspace_are_deleted_through_storage() -> None:
    """Which asks whether this command still holds the lock of its run; `Path.unlink` does not."""
    on_a_disk = (
        "pipeline/files",
        "stages/models/clip/architectures.py",  # the hub's cache
        "stages/train/records/tensorboard.py",  # a local copy
    )
    deleting = ("unlink", "rmdir", "rmtree", "rename")
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in deleting
    ]
    assert [place for place in found if not place.startswith(on_a_disk)] == []
