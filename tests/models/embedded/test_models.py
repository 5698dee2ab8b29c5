from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import WeightsError
from stages.models.clip.clip_weights import ClipChoice
from stages.models.embedded.models import CLIP, SAM, EmbeddedModel
from stages.propose.config import ProposeConfig


def test_facts_are_those_of_finished_labels() -> None:
    """With other names or bytes, `status` would call finished labels of users stale."""
    assert ClipChoice(model="sandbox").weights_facts() == {
        "weights": "open_clip_model.safetensors sha256:1d35b8972b6d",
        "weights.config": "open_clip_config.json sha256:1ea4705b124c",
    }
    assert ProposeConfig(model="sandbox").weights_facts() == {
        "propose.weights": "sam_model.safetensors sha256:5660a3b5a6fd",
        "propose.weights.config": "sam_config.json sha256:a7fab69c74bd",
    }


@pytest.mark.parametrize("model", [CLIP, SAM], ids=["clip", "sam"])
@pytest.mark.parametrize("missing", ["weights", "config"])
def test_a_missing_file_is_an_error_that_says_how_to_restore_it(
    model: EmbeddedModel, missing: str, tmp_path: Path
) -> None:
    elsewhere = replace(model, folder=tmp_path)
    for file in {elsewhere.weights, elsewhere.config} - {getattr(elsewhere, missing)}:
        file.touch()
    with pytest.raises(WeightsError) as caught:
        elsewhere.facts()
    assert str(caught.value) == (
        f"{getattr(elsewhere, missing)}: this file of the sandbox's {model.kind} is missing; "
        "reinstall Maskmill; in a clone, restore the file with git, or run "
        f"`python -m tools.sandbox.train_{model.kind.lower()}`"
    )
