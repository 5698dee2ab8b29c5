"""Which of the processes that torchrun started this one is; told by the environment, without torch.

The first one, the leader, does all that is done once: it plans, writes and prints. The others help
with what a stage does together.
"""

import os


def world() -> int:
    """How many processes there are; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_leader() -> bool:
    """Whether this is the first of them."""
    return world() == 1 or int(os.environ.get("RANK", "0")) == 0
