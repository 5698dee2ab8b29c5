"""The two losses of stage two; label sources and perturbations only choose what goes into them."""

from torch import Tensor
from torch.nn.functional import cross_entropy

from pipeline.vocabulary import IGNORE
from stages.pseudolabel.pseudo_labels import PseudoLabels


def supervised_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Mean cross-entropy over the pixels of a batch that have a class.

    Args:
        logits: (B, C, H, W) float.
        mask: (B, H, W) int64 class ids below C, 255 = ignore.

    Returns:
        Scalar; 0 with a zero gradient if every pixel is ignored.
    """
    total = cross_entropy(logits, mask, ignore_index=IGNORE, reduction="sum")
    return total / (mask != IGNORE).sum().clamp(min=1)


def pseudo_label_loss(
    logits: Tensor,
    labels: PseudoLabels,
    valid: Tensor,
    *,
    threshold: float = 0.0,
    weigh_by_confidence: bool = True,
) -> Tensor:
    """Cross-entropy against pseudo-labels that are confident enough, per valid pixel.

    The sum runs over confident pixels, the denominator over all valid ones: the fewer pixels are
    sure, the less the term weighs (UniMatch, arXiv 2208.09910, section 3.1). A pixel that the
    labels ignore counts like one of low confidence.

    Args:
        logits: (B, C, H, W) float; the gradient goes here and nowhere else.
        labels: Of the same B images, (B, H, W); class ids below C, 255 = ignore.
        valid: (B, H, W) bool, False on padding.
        threshold: Least confidence that counts, in [0, 1].
        weigh_by_confidence: Multiply each pixel's cross-entropy by its confidence.

    Returns:
        Scalar; 0 with a zero gradient if no pixel counts.
    """
    counts = valid & (labels.confidence >= threshold)
    target = labels.mask.masked_fill(~counts, IGNORE)
    loss = cross_entropy(logits, target, ignore_index=IGNORE, reduction="none")
    if weigh_by_confidence:
        loss = loss * labels.confidence.detach()
    return loss.sum() / valid.sum().clamp(min=1)
