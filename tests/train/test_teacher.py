import pytest
import torch
from torch import Tensor, nn

from stages.models.segmenters.networks.base import frozen_copy
from stages.train.loop.teacher import decay, update


class Student(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, kernel_size=1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> Tensor:
        normed: Tensor = self.norm(self.conv(images))
        return normed

    def mean(self) -> Tensor:
        assert self.norm.running_mean is not None
        return self.norm.running_mean


def student() -> Student:
    torch.manual_seed(0)
    return Student()


@pytest.mark.parametrize(
    ("step", "share"),
    [(0, 0.0), (1, 0.5), (9, 0.9), (248, 1 - 1 / 249), (249, 0.996), (9999, 0.996)],
)
def test_decay_warms_up_to_its_limit(step: int, share: float) -> None:
    assert decay(step, 0.996) == pytest.approx(share)


def test_decay_respects_another_limit() -> None:
    assert decay(9999, 0.99) == 0.99


def test_a_frozen_copy_does_not_follow_the_student() -> None:
    network = student()
    copy = frozen_copy(network)
    assert not copy.training
    assert network.training
    assert not any(parameter.requires_grad for parameter in copy.parameters())
    assert all(parameter.requires_grad for parameter in network.parameters())
    before = copy(torch.ones(1, 3, 2, 2))
    network.conv.weight.data.add_(1)
    assert torch.equal(copy(torch.ones(1, 3, 2, 2)), before)


def test_the_first_update_makes_teacher_and_student_equal() -> None:
    network = student()
    teacher = frozen_copy(network)
    for parameter in network.parameters():
        parameter.data.add_(torch.randn_like(parameter))
    network(torch.randn(4, 3, 5, 5))
    update(teacher, network, decay(0, 0.996))
    assert all(
        torch.equal(value, teacher.state_dict()[name])
        for name, value in network.state_dict().items()
    )


def test_parameters_and_statistics_are_averaged_and_counters_copied() -> None:
    network = student()
    teacher = frozen_copy(network)
    weight, mean = teacher.conv.weight.clone(), teacher.mean().clone()
    network.conv.weight.data.add_(1)
    network(torch.randn(4, 3, 5, 5))
    update(teacher, network, 0.75)
    assert torch.allclose(teacher.conv.weight, weight + 0.25)
    assert torch.allclose(teacher.mean(), 0.75 * mean + 0.25 * network.mean())
    assert teacher.norm.num_batches_tracked == network.norm.num_batches_tracked == 1


def test_after_the_warm_up_the_teacher_is_the_mean_of_its_students() -> None:
    network = nn.Linear(1, 1, bias=False)
    teacher = frozen_copy(network)
    for step, weight in enumerate([1.0, 2.0, 6.0]):
        network.weight.data.fill_(weight)
        update(teacher, network, decay(step, 0.996))
    assert teacher.weight.item() == pytest.approx(3.0)
