from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from pipeline.errors import ConfigError
from pipeline.vocabulary import Vocabulary
from stages.pseudolabel.clip import load_clip
from stages.pseudolabel.text import Channels, channels, embed

BuildVocabulary = Callable[..., Vocabulary]


def test_a_class_scores_as_its_best_concept() -> None:
    """T16 of the methods: channels {0: [0, 1], 1: [2]} on scores [.2, .9, .5]."""
    chosen = Channels(("a", "b", "c"), ((0, 1), (2,)), (0, 1))
    cosines = torch.tensor([[0.2, 0.9, 0.5], [0.3, 0.1, 0.2]])
    expected = torch.tensor([[0.9, 0.5], [0.3, 0.2]])
    assert torch.equal(chosen.class_scores(cosines), expected)


def test_concepts_are_flattened_class_by_class(vocabulary: BuildVocabulary) -> None:
    chosen = channels(
        vocabulary(boat=["boat", "ship"], cat=None, dog=["dog"], background_concepts=["sky", "sea"])
    )
    assert chosen.concepts == ("boat", "ship", "cat", "dog", "sky", "sea")
    assert chosen.members == ((0, 1), (2,), (3,), (4, 5))
    assert chosen.values == (0, 1, 2, 255)


def test_background_concepts_join_the_background_class(vocabulary: BuildVocabulary) -> None:
    chosen = channels(
        vocabulary(
            other=["wall"], cat=["cat"], background="other", background_concepts=["sky", "sea"]
        )
    )
    assert chosen.concepts == ("wall", "cat", "sky", "sea")
    assert chosen.members == ((0, 2, 3), (1,))
    assert chosen.values == (0, 1)


def test_a_class_without_concepts_gets_no_channel(vocabulary: BuildVocabulary) -> None:
    chosen = channels(vocabulary(nothing=[], cat=["cat"], void=[]))
    assert (chosen.concepts, chosen.values) == (("cat",), (1,))


@pytest.mark.parametrize("background_concepts", [[], ["sky"]])
def test_a_vocabulary_without_class_concepts_is_refused(
    vocabulary: BuildVocabulary, background_concepts: list[str]
) -> None:
    with pytest.raises(ConfigError) as raised:
        channels(vocabulary(nothing=[], background_concepts=background_concepts))
    assert str(raised.value) == (
        "vocabulary test: no class has a concept to look for; give at least one class a concept"
    )


def test_an_embedding_is_the_normalised_mean_over_templates(
    clip_folder: Callable[[str], Path],
) -> None:
    folder = clip_folder("vit")
    weights = folder / "open_clip_model.safetensors"
    clip = load_clip(folder, weights, window_px=16, device=torch.device("cpu"))
    concepts = [f"thing {number}" for number in range(150)]
    embeddings = embed(clip, concepts, ("a {}", "the {} {here}"))
    assert embeddings.shape == (150, 32)
    one = normalize(clip.encode_text(["a thing 149", "the thing 149 {here}"]), dim=-1)
    expected = normalize(one.mean(0), dim=-1)
    torch.testing.assert_close(embeddings[149], expected)
    torch.testing.assert_close(embeddings.norm(dim=-1), torch.ones(150))
