"""The two losses of stage two; label sources and perturbations only choose what goes into them."""

from torch import Tensor
from torch.nn.functional import cross_entropy

from pipeline.vocabulary import IGNORE
from stages.pseudolabel.pseudo_labels import PseudoLabels
from stages.train.processes import denominator


def supervised_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Mean cross-entropy over the pixels of a batch that have a class.

    Args:
        logits: (B, C, H, W) float.
        mask: (B, H, W) int64 class ids below C, 255 = ignore.

    Returns:
        Scalar; 0 with a zero gradient if every pixel is ignored.
    """
    total = cross_entropy(logits.float(), mask, ignore_index=IGNORE, reduction="sum")
    return total / denominator((mask != IGNORE).sum())


def pseudo_label_loss(
    logits: Tensor,
    labels: PseudoLabels,
    valid: Tensor,
) -> Tensor:
    """Cross-entropy against pseudo-labels, each pixel weighed by its confidence, per valid pixel.

    The denominator counts all valid pixels: the fewer are sure, the less the term weighs. With
    confidences of 0 and 1 (`PseudoLabels.confident`) this is UniMatch's loss (arXiv 2208.09910,
    section 3.1). A pixel that the labels ignore counts like one of confidence 0.

    Args:
        logits: (B, C, H, W) float; the gradient goes here and nowhere else.
        labels: Of the same B images, (B, H, W); class ids below C, 255 = ignore.
        valid: (B, H, W) bool, False on padding.

    Returns:
        Scalar; 0 with a zero gradient if no pixel counts.
    """
    target = labels.mask.masked_fill(~valid, IGNORE)
    loss = cross_entropy(logits.float(), target, ignore_index=IGNORE, reduction="none")
    return (loss * labels.confidence.detach()).sum() / denominator(valid.sum())
