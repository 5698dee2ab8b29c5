"""The loss of pseudo-labels, shared by all label sources and perturbations."""

from torch import Tensor
from torch.nn.functional import cross_entropy

from pipeline.config.vocabulary import IGNORE
from stages.train.distributed import denominator


def pseudo_label_loss(
    logits: Tensor, mask: Tensor, weights: Tensor, counted: Tensor, smoothing: float = 0.0
) -> Tensor:
    """Weighted cross-entropy: ``sum(weights * CE) / number of counted pixels``.

    The denominator counts pixels of all processes regardless of their weight, so a term with few
    confident pixels is small (UniMatch, arXiv 2208.09910, section 3.1). Ignored pixels add nothing.

    Args:
        logits: (B, C, H, W) float; gradients flow only into these.
        mask: (B, H, W) int64 class ids below C, 255 = ignore.
        weights: (B, H, W) float, at least 0.
        counted: (B, H, W) bool, the pixels of the denominator.
        smoothing: Label smoothing, 0 to 1.

    Returns:
        Scalar; 0 with a zero gradient if no pixel counts.
    """
    loss = cross_entropy(
        logits.float(), mask, ignore_index=IGNORE, reduction="none", label_smoothing=smoothing
    )
    return (loss * weights.detach()).sum() / denominator(counted.sum())
