from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from torch._inductor.exc import InductorError

from pipeline.errors import ConfigError
from stages.train.loop.torch_errors import compile_errors


def test_half_of_a_compiled_file_is_named_with_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill while torch compiles leaves such a file, and torch never replaces it."""
    cache = tmp_path / "torch"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(cache))
    for folder, fix in (
        (cache, f"delete {cache}, where a kill may have left half a file, or set `compile: false`"),
        (tmp_path / "else", "set `compile: false`"),
    ):
        folder.mkdir(exist_ok=True)
        half = folder / "main.so"
        half.write_bytes(b"\x7fELF")
        spec = spec_from_file_location("main", half)
        assert spec is not None
        with pytest.raises(ImportError, match="file too short") as raised:
            module_from_spec(spec)
        with pytest.raises(ConfigError) as caught, compile_errors("config.yaml: train"):
            raise InductorError(raised.value, None)
        what = f"torch cannot compile the network: ImportError: {half}: file too short"
        assert str(caught.value) == f"config.yaml: train: {what}; {fix}"
