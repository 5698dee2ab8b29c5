"""A tiny run that every test can afford: 8 drawn images of 32 px, masks, three classes."""

import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml

from tests.file_server import FileServer
from tests.repository import ROOT
from tests.s3_server import Proxy, forget_clients
from tests.shapes import draw_shapes
from tests.tiny_clip import write_clip

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # before torch loads: its idle threads would spin
# Of several processes of pytest each has a core.
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")

COUNTS = {"test": 1, "val": 1, "labeled": 2, "unlabeled": 2, "ood": 2}
WITH_MASKS = ("test", "val", "labeled")
VOCABULARY: dict[str, Any] = {
    "name": "shapes",
    "background": "background",
    "classes": [
        {"name": "background", "color": "#000000", "concepts": []},
        {"name": "disc", "color": "#ff0000"},
        {"name": "box", "color": "#0000ff", "concepts": ["box", "square"]},
    ],
}


def pytest_configure() -> None:
    """Refuses to run where results would depend on the locale."""
    if sys.getfilesystemencoding() != "utf-8":
        raise pytest.UsageError("tests write names that are not ASCII: set PYTHONUTF8=1")
    # A shell that starts the tests in the background has them ignore Ctrl-C, which some tests send.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    """Default configs are found wherever pytest was started."""
    monkeypatch.chdir(ROOT)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with `<role>/images` and `<role>/masks`; masks hold class ids."""
    folder = tmp_path / "data"
    draw_shapes(folder, COUNTS, WITH_MASKS)
    return folder


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder, in open_clip's layout, of a tiny CLIP with a ViT and random weights."""
    folder = tmp_path_factory.mktemp("clip")
    write_clip(folder)
    return folder


@pytest.fixture
def tiny(tmp_path: Path, data: Path) -> dict[str, Any]:
    """Plain values of a config that ingests `data` in two shards, the first with all masks."""
    sources = {}
    for role in COUNTS:
        source = {"name": "folder", "images": f"{role}/images"}
        if role in WITH_MASKS:
            source["masks"] = f"{role}/masks"
        sources[role] = {"role": role, "source": source}
    return {
        "run": "tiny",
        "workspace": str(tmp_path / "workspace"),
        "data": str(data),
        "vocabulary": "vocabulary.yaml",
        "ingest": {"shard_size": 4, "sources": sources},
    }


@pytest.fixture
def write_config(tmp_path: Path) -> Callable[..., Path]:
    """Writes plain values, and a vocabulary beside them: ``write_config(tiny, classes=[...])``."""

    def write(values: dict[str, Any], **vocabulary: Any) -> Path:
        (tmp_path / "vocabulary.yaml").write_text(yaml.safe_dump({**VOCABULARY, **vocabulary}))
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(values, sort_keys=False))
        return path

    return write


@pytest.fixture
def build_sam() -> Callable[[], Any]:
    """Builds SAMs of segment_anything's own modules that see 32 px, all of equal random weights."""
    import torch
    from segment_anything import modeling

    def build() -> Any:
        torch.manual_seed(0)
        encoder = modeling.ImageEncoderViT(
            img_size=32, patch_size=8, embed_dim=16, depth=1, num_heads=2, out_chans=16
        )
        prompts = modeling.PromptEncoder(
            embed_dim=16, image_embedding_size=(4, 4), input_image_size=(32, 32), mask_in_chans=4
        )
        transformer = modeling.TwoWayTransformer(depth=1, embedding_dim=16, num_heads=2, mlp_dim=16)
        decoder = modeling.MaskDecoder(transformer_dim=16, transformer=transformer)
        return modeling.Sam(encoder, prompts, decoder).eval()

    return build


@pytest.fixture
def propose(
    build_sam: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> dict[str, Any]:
    """A section `propose` with a tiny SAM, which segment_anything knows for as long as `vit_b`."""
    from safetensors.torch import save_file
    from segment_anything import sam_model_registry

    monkeypatch.setitem(sam_model_registry, "vit_b", build_sam)
    weights = tmp_path / "sam.safetensors"
    save_file(build_sam().state_dict(), weights)
    open_to_all = {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "points_per_side": 4}
    return {"model": "vit_b", "weights": str(weights), "size_px": 48, **open_to_all}


@pytest.fixture
def maskmill(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., CompletedProcess[str]]:
    """The command line, in this process: ``maskmill("run", "ingest", "--config", path)``."""

    def call(*arguments: object) -> CompletedProcess[str]:
        from maskmill.cli.main import main

        texts = ["maskmill", *(str(argument) for argument in arguments)]
        monkeypatch.setattr("sys.argv", texts)
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        return CompletedProcess(texts, int(end.value.code or 0), *capsys.readouterr())

    return call


@pytest.fixture
def call(
    maskmill: Callable[..., CompletedProcess[str]],
) -> Callable[..., CompletedProcess[str]]:
    """The command line with a config: ``call("run train", config, "train.steps=3", code=0)``.

    Tests of one config override this with what takes the rest: ``call("run", "run=other")``.
    """

    def command(
        line: str, config: Path, *overrides: str, code: int | None = None
    ) -> CompletedProcess[str]:
        sets = [part for override in overrides for part in ("--set", override)]
        result = maskmill(*line.split(), "--config", config, *sets)
        assert code in (None, result.returncode), result.stderr
        return result

    return command


@pytest.fixture
def machine_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in place of the one that all runs of this machine share."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("MASKMILL_CACHE", str(folder))
    return folder


@pytest.fixture
def file_server() -> Iterator[tuple[FileServer, str]]:
    """A web server, and its address."""
    server = FileServer()
    with server.running() as address:
        yield server, address


@pytest.fixture(scope="session")
def s3_server() -> Iterator[tuple[str, int]]:
    """Host and port of a real S3 server, in this process."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()
    server.stop()


@pytest.fixture
def s3(s3_server: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy before the server, which this process and those it starts take for AWS."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    proxy = Proxy(s3_server)
    with proxy.running() as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "3")
        forget_clients()
        yield proxy
        forget_clients()


@pytest.fixture
def bucket(s3: Proxy) -> str:
    """Address of an empty bucket."""
    from pipeline.files import s3_objects

    name = f"bucket-{uuid.uuid4().hex[:12]}"
    s3_objects.client().call_s3("create_bucket", Bucket=name)
    return f"s3://{name}"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 128 kB; only root can have one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount") or "mount"
    command = [mount, "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("cannot mount a small disk here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
