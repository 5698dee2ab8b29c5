"""Builds the tiny SAM from its folder."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load as deserialize
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import nn

from pipeline.errors import WeightsError
from stages.models.embedded.models import SAM
from stages.models.embedded.sam_encoder import PyramidEncoder
from stages.models.finite import finite_weights

_STRIDE = 8  # of the encoder; SAM's decoder scales up by 4, so a mask pixel is 2 image pixels wide


def build(folder: Path) -> Any:
    """Builds the folder's SAM in float32, with its weights if there are any, else random ones.

    Args:
        folder: Holds the config, and the weights if the SAM is trained.

    Returns:
        A `segment_anything.modeling.Sam` in evaluation mode, for `SamPredictor` and
        `SamAutomaticMaskGenerator`.

    Raises:
        WeightsError: There is no config, or the weights do not fit it.
    """
    try:
        config = json.loads((folder / SAM.config_name).read_text())
    except FileNotFoundError:
        what = "this config of a tiny SAM is missing"
        raise SAM.error(folder / SAM.config_name, what) from None
    encoder = PyramidEncoder(**config["encoder"])
    width, side = config["encoder"]["embed_dim"], encoder.img_size // _STRIDE
    model = Sam(
        encoder,
        PromptEncoder(
            embed_dim=width,
            image_embedding_size=(side, side),
            input_image_size=(encoder.img_size, encoder.img_size),
            mask_in_chans=config["mask_in_chans"],
        ),
        MaskDecoder(
            transformer_dim=width,
            transformer=TwoWayTransformer(embedding_dim=width, **config["transformer"]),
            activation=nn.ReLU,  # GELU costs a tenth of the decoder's time
            iou_head_hidden_dim=config["iou_head_hidden_dim"],
        ),
    )
    weights = folder / SAM.weights_name
    if weights.exists():
        try:
            model.load_state_dict(finite_weights(deserialize(weights.read_bytes()), str(weights)))
        except RuntimeError:
            what = f"the weights do not fit {SAM.config_name} in the same folder"
            fix = "restore the config that they were trained with, or delete the weights"
            raise WeightsError(what, where=str(weights), fix=fix) from None
    return model.eval()
