import pytest
import torch

from pipeline.errors import ConfigError
from stages.models.device import peak_memory_bytes, pick_device


def test_the_peak_on_the_cpu_is_in_bytes() -> None:
    """Kilobytes would be too few for torch alone, and bits too many for a test."""
    assert 50e6 < peak_memory_bytes(torch.device("cpu")) < 50e9


@pytest.mark.parametrize("name", ["mps", "cuda:99", "meta", "tpu"])
def test_a_device_that_is_not_here_is_one_line(name: str) -> None:
    if name == "mps" and torch.backends.mps.is_available():
        assert pick_device(name).type == "mps"
        return
    with pytest.raises(ConfigError, match=r"this machine has no device .*; use auto, cpu, or on"):
        pick_device(name)


def test_a_device_that_torch_has_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as a CPU can show: torch's own tensor says which device it is on."""
    here = torch.zeros(0)
    apple = torch.device("mps")
    zeros = {"cpu": here, "mps": Tensor(apple)}
    monkeypatch.setattr(torch, "zeros", lambda *_, device: zeros[device])
    assert pick_device("mps") == apple
    assert 50e6 < peak_memory_bytes(apple) < 50e9


class Tensor:
    def __init__(self, device: torch.device) -> None:
        self.device = device
