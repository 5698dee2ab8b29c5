"""The rank of this process and the number of processes of torchrun, read without torch.

The first one, the leader, does all that is done once: it plans, writes and prints. The others help
with what a stage does together.
"""

import os


def world() -> int:
    """Number of processes; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_leader() -> bool:
    """Whether this is the first process."""
    return world() == 1 or int(os.environ.get("RANK", "0")) == 0
