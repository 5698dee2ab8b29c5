"""The loss of pseudo-labels; label sources and perturbations only choose what goes into it."""

from torch import Tensor
from torch.nn.functional import cross_entropy

from pipeline.config.vocabulary import IGNORE
from stages.train.distributed import denominator


def pseudo_label_loss(
    logits: Tensor, mask: Tensor, weights: Tensor, counted: Tensor, smoothing: float = 0.0
) -> Tensor:
    """Weighted cross-entropy: ``sum(weights * CE) / number of counted pixels``.

    The denominator counts pixels, of all processes, whatever they weigh: the fewer are sure, the
    less the term weighs (UniMatch, arXiv 2208.09910, section 3.1). Pixels that the labels ignore
    add nothing.

    Args:
        logits: (B, C, H, W) float; the gradient goes here and nowhere else.
        mask: (B, H, W) int64 class ids below C, 255 = ignore.
        weights: (B, H, W) float, at least 0.
        counted: (B, H, W) bool.
        smoothing: Share of the target that all classes divide evenly, 0 to 1.

    Returns:
        Scalar; 0 with a zero gradient if no pixel counts.
    """
    loss = cross_entropy(
        logits.float(), mask, ignore_index=IGNORE, reduction="none", label_smoothing=smoothing
    )
    return (loss * weights.detach()).sum() / denominator(counted.sum())
