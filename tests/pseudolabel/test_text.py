import io
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip import OPENAI_IMAGENET_TEMPLATES
from torch import Tensor
from torch.nn.functional import normalize

from pipeline.config.vocabulary import Vocabulary
from pipeline.errors import ConfigError
from stages.models.clip.clip import Clip, load_clip
from stages.models.clip.text import TEMPLATES, Channels, channels, embed, ensemble, templates_of
from stages.models.clip.text_cache import TextCache

BuildVocabulary = Callable[..., Vocabulary]


def test_a_class_scores_as_its_best_concept() -> None:
    """Maximum over the concepts of a class: channels {0: [0, 1], 1: [2]} on scores [.2, .9, .5]."""
    chosen = Channels((("a",), ("b",), ("c",)), ((0, 1), (2,)), (0, 1))
    cosines = torch.tensor([[0.2, 0.9, 0.5], [0.3, 0.1, 0.2]])
    expected = torch.tensor([[0.9, 0.5], [0.3, 0.2]])
    assert torch.equal(chosen.class_scores(cosines), expected)


def test_concepts_are_flattened_class_by_class(vocabulary: BuildVocabulary) -> None:
    chosen = channels(
        vocabulary(boat=["boat", "ship"], cat=None, dog=["dog"], background_concepts=["sky", "sea"])
    )
    assert [*chain(*chosen.queries)] == ["boat", "ship", "cat", "dog", "sky", "sea"]
    assert chosen.members == ((0, 1), (2,), (3,), (4, 5))
    assert chosen.values == (0, 1, 2, 255)


def test_background_concepts_join_the_background_class(vocabulary: BuildVocabulary) -> None:
    chosen = channels(
        vocabulary(
            other=["wall"], cat=["cat"], background="other", background_concepts=["sky", "sea"]
        )
    )
    assert [*chain(*chosen.queries)] == ["wall", "cat", "sky", "sea"]
    assert chosen.members == ((0, 2, 3), (1,))
    assert chosen.values == (0, 1)


def test_a_class_without_concepts_gets_no_channel(vocabulary: BuildVocabulary) -> None:
    chosen = channels(vocabulary(nothing=[], cat=["cat"], void=[]))
    assert (chosen.queries, chosen.values) == ((("cat",),), (1,))


@pytest.mark.parametrize("background_concepts", [[], ["sky"]])
def test_a_vocabulary_without_class_concepts_is_refused(
    vocabulary: BuildVocabulary, background_concepts: list[str]
) -> None:
    with pytest.raises(ConfigError) as raised:
        channels(vocabulary(nothing=[], background_concepts=background_concepts))
    assert str(raised.value) == (
        "vocabulary test: no class has a concept to look for; give at least one class a concept"
    )


@pytest.fixture
def clip(clip_folder: Callable[[str], Path]) -> Clip:
    folder = clip_folder("vit")
    weights = folder / "open_clip_model.safetensors"
    return load_clip(folder, weights, window_px=16, device=torch.device("cpu"))


def raw(clip: Clip, *prompts: str) -> Tensor:
    return clip.encode_text(prompts, normalize=False)


@pytest.mark.parametrize(
    ("prompts", "first", "last", "count"),
    [
        ("single", "a photo of a {}", "a photo of a {}", 1),
        ("single-dot", "a photo of a {}.", "a photo of a {}.", 1),
        ("mean-80", "a bad photo of a {}.", "a tattoo of the {}.", 80),
        ("mean-85", "a bad photo of a {}.", "this is one {} in the scene.", 85),
        ("stack-80", "a bad photo of a {}.", "a tattoo of the {}.", 80),
    ],
)
def test_prompt_sets_are_the_published_ones(
    vocabulary: BuildVocabulary, prompts: str, first: str, last: str, count: int
) -> None:
    templates = templates_of(vocabulary(cat=None, prompts=prompts))
    assert (templates[0], templates[-1], len(templates)) == (first, last, count)
    if count == 80:
        assert [one.format("cat") for one in templates] == [
            template("cat") for template in OPENAI_IMAGENET_TEMPLATES
        ]


def test_templates_are_averaged_as_embeddings_of_length_1(
    clip: Clip, vocabulary: BuildVocabulary
) -> None:
    """mean-80 and single of the methods."""
    chosen = channels(vocabulary(**{f"thing {number}": None for number in range(20)}))
    stack = embed(partial(clip.encode_text, normalize=False), chosen, ("a {}", "the {} {here}"))
    assert stack.shape == (20, 2, 32)
    one = normalize(raw(clip, "a thing 19", "the thing 19 {here}"), dim=-1)
    torch.testing.assert_close(stack[19], one)
    torch.testing.assert_close(ensemble(stack)[19], normalize(one.mean(0), dim=-1))
    torch.testing.assert_close(ensemble(stack).norm(dim=-1), torch.ones(20))
    single = embed(partial(clip.encode_text, normalize=False), chosen, TEMPLATES["single"])
    torch.testing.assert_close(ensemble(single)[3], clip.encode_text(["a photo of a thing 3"])[0])


def test_synonyms_are_averaged_template_by_template(
    clip: Clip, vocabulary: BuildVocabulary
) -> None:
    """stack-80 of the methods: normalise, average over synonyms, normalise again, keep the axis."""
    chosen = channels(vocabulary(screen=[["tv", "monitor", "standalone screen"]], cat=None))
    assert chosen.members == ((0,), (1,))
    templates = TEMPLATES["stack-80"]
    stack = embed(partial(clip.encode_text, normalize=False), chosen, templates)
    assert stack.shape == (2, 80, 32)
    names = ("tv", "monitor", "standalone screen")
    for position in (0, 79):
        template = templates[position]
        own = normalize(raw(clip, *(template.format(name) for name in names)), dim=-1)
        torch.testing.assert_close(stack[0, position], normalize(own.mean(0), dim=-1))
        torch.testing.assert_close(
            stack[1, position], clip.encode_text([template.format("cat")])[0]
        )


def test_concept_avg_is_the_mean_of_embeddings_of_their_own_length(
    clip: Clip, vocabulary: BuildVocabulary
) -> None:
    """SemiVL's concept-avg: the mean of unnormalised embeddings, then normalised."""
    chosen = channels(
        vocabulary(
            car=["car", "realistic toy car"],
            other=["wall", "sky"],
            background="other",
            background_concepts=["sea", "snow"],
            aggregation="concept-avg",
        )
    )
    assert chosen.queries == (("car", "realistic toy car"), ("wall", "sky"), ("sea",), ("snow",))
    assert (chosen.members, chosen.values) == (((0,), (1, 2, 3)), (0, 1))
    stack = embed(partial(clip.encode_text, normalize=False), chosen, TEMPLATES["single"])
    both = raw(clip, "a photo of a car", "a photo of a realistic toy car")
    torch.testing.assert_close(ensemble(stack)[0], normalize(both.mean(0), dim=-1))
    lengths = both.norm(dim=-1)
    assert abs(float(lengths[0] - lengths[1])) > 1e-3  # else raw and normalised means would agree


class Asked:
    """A text side that remembers what it was asked."""

    def __init__(self, clip: Clip) -> None:
        self.prompts: list[str] = []
        self._clip = clip

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        self.prompts += prompts
        return raw(self._clip, *prompts)


def test_a_changed_class_list_embeds_only_what_is_new(
    clip: Clip, vocabulary: BuildVocabulary, tmp_path: Path
) -> None:
    asked = Asked(clip)
    cache = TextCache(tmp_path, {"weights": "a"})
    first = channels(vocabulary(cat=["cat"], dog=["dog"]))
    embed(asked, first, ("a {}",), cache=cache)
    assert asked.prompts == ["a cat", "a dog"]
    asked.prompts.clear()
    changed = channels(vocabulary(dog=["dog", "puppy"], bird=[["bird", "cat"]]))
    found = embed(asked, changed, ("a {}",), cache=cache)
    assert asked.prompts == ["a puppy", "a bird"]
    assert torch.equal(found, embed(asked, changed, ("a {}",)))  # equal to the last bit
    asked.prompts.clear()
    embed(asked, first, ("the {}",), cache=cache)
    embed(asked, first, ("a {}",), cache=TextCache(tmp_path, {"weights": "b"}))
    assert asked.prompts == ["the cat", "the dog", "a cat", "a dog"]


@pytest.mark.parametrize("damage", ["cut", "empty", "zeros", "key", "shape", "type"])
def test_what_is_damaged_in_the_cache_is_embedded_again(
    clip: Clip, vocabulary: BuildVocabulary, tmp_path: Path, damage: str
) -> None:
    chosen = channels(vocabulary(cat=None))
    whole = embed(Asked(clip), chosen, ("a {}", "the {}"), cache=TextCache(tmp_path, {}))
    [file] = tmp_path.glob("*/*")
    content = file.read_bytes()
    if damage in ("cut", "empty", "zeros"):
        middle = content[:200] + bytes(40) + content[240:]
        file.write_bytes({"cut": content[:-40], "empty": b"", "zeros": middle}[damage])
    elif damage == "key":
        np.savez(file, other=np.zeros((2, 32), np.float32))
    else:
        wrong = np.zeros((3, 32), np.float32) if damage == "shape" else np.zeros((2, 32), int)
        with np.load(io.BytesIO(content)) as own:
            np.savez(file, embeddings=wrong, key=own["key"])
    asked = Asked(clip)
    found = embed(asked, chosen, ("a {}", "the {}"), cache=TextCache(tmp_path, {}))
    assert asked.prompts == ["a cat", "the cat"]
    assert torch.equal(found, whole)
    assert len(file.read_bytes()) == len(content)  # written again


def test_files_of_the_cache_that_were_exchanged_are_embedded_again(
    clip: Clip, vocabulary: BuildVocabulary, tmp_path: Path
) -> None:
    chosen, cache = channels(vocabulary(cat=["cat"], dog=["dog"])), TextCache(tmp_path, {})
    whole = embed(Asked(clip), chosen, ("a {}",), cache=cache)
    one, other = tmp_path.glob("*/*")
    contents = one.read_bytes(), other.read_bytes()
    one.write_bytes(contents[1])
    other.write_bytes(contents[0])
    asked = Asked(clip)
    assert torch.equal(embed(asked, chosen, ("a {}",), cache=cache), whole)
    assert asked.prompts == ["a cat", "a dog"]
    assert (one.read_bytes(), other.read_bytes()) == contents
