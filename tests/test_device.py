import torch

from stages.models.device import peak_memory_bytes


def test_the_peak_on_the_cpu_is_in_bytes() -> None:
    """Kilobytes would be too few for torch alone, and bits too many for a test."""
    assert 50e6 < peak_memory_bytes(torch.device("cpu")) < 50e9
