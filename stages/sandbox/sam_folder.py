"""The tiny SAM as a folder: a config that says its architecture, and weights."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load as deserialize
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import nn

from pipeline.errors import WeightsError
from stages.sandbox.sam_encoder import PyramidEncoder
from stages.sandbox.training import save_half

CONFIG: dict[str, Any] = {
    "encoder": {
        "img_size": 128,
        "widths": [24, 48, 96, 160],
        "depths": [1, 1, 2, 2],
        "pyramid_width": 64,
        "embed_dim": 64,
    },
    "transformer": {
        "depth": 2,
        "num_heads": 1,
        "mlp_dim": 128,
        "attention_downsample_rate": 1,
    },
    "mask_in_chans": 16,
    "iou_head_hidden_dim": 64,
}
"""What `start` writes: arguments of the modules, by their own names."""

_CONFIG, _WEIGHTS = "sam_config.json", "sam_model.safetensors"
_STRIDE = 8  # of the encoder; SAM's decoder scales up by 4, so a mask has 2 px of the image a pixel


def start(folder: Path) -> None:
    """Writes the config of a SAM that has still to learn; the folder is made where missing."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _CONFIG).write_text(json.dumps(CONFIG, indent=2) + "\n")


def build(folder: Path) -> Any:
    """The folder's SAM in float32, with its weights where there are any, else at random.

    Args:
        folder: Begun by `start`.

    Returns:
        A `segment_anything.modeling.Sam` in evaluation mode, for `SamPredictor` and
        `SamAutomaticMaskGenerator`.

    Raises:
        WeightsError: There is no config, or the weights are those of another architecture.
    """
    try:
        config = json.loads((folder / _CONFIG).read_text())
    except FileNotFoundError:
        fix = "run `python -m stages.sandbox.train_sam`, or name the folder it wrote"
        raise WeightsError("there is no tiny SAM", where=str(folder), fix=fix) from None
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
    weights = folder / _WEIGHTS
    if weights.exists():
        try:
            model.load_state_dict(deserialize(weights.read_bytes()))
        except RuntimeError:
            fix = f"delete it, or restore the {_CONFIG} it was trained with"
            what = "the weights do not fit the config beside them"
            raise WeightsError(what, where=str(weights), fix=fix) from None
    return model.eval()


def save(model: Any, folder: Path) -> None:
    """Writes the weights in half precision; counters and the like keep their type."""
    save_half(folder / _WEIGHTS, model.state_dict())
