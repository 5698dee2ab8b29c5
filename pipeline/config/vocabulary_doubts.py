"""Warnings about classes that may never be found, or look like others."""

from pipeline.config.vocabulary import IGNORE, Vocabulary, normal


def reached(vocabulary: Vocabulary, scheme: str | None) -> frozenset[int]:
    """The classes that a label file of a scheme can show; None = pixel values are class ids.

    Raises:
        DataError: The vocabulary has no such scheme.
    """
    (targets,) = vocabulary.scheme_facts(scheme).values()
    assert isinstance(targets, dict)
    return frozenset(value for value in targets.values() if isinstance(value, int)) - {IGNORE}


def asked_for(vocabulary: Vocabulary, *, has_rest: bool) -> frozenset[int]:
    """The classes that labels made from text can show: those with concepts.

    Args:
        vocabulary: The classes.
        has_rest: Whether the labeler makes unsure pixels background, which then needs no concepts.
    """
    rest = {vocabulary.background_id} if has_rest else set()
    return frozenset(({value for value, _ in vocabulary.queries()} | rest) - {IGNORE})


def doubts_of_texts(vocabulary: Vocabulary, *, has_rest: bool) -> list[str]:
    """Warnings about classes that labels made from text may lack; one line each.

    Args:
        vocabulary: The classes.
        has_rest: See `asked_for`.
    """
    asked = asked_for(vocabulary, has_rest=has_rest)
    found = []
    for class_id, name in enumerate(vocabulary.class_names):
        if class_id not in asked and name == vocabulary.background:
            lacking = "no concepts, no background_concepts and no `prob_threshold` of the labeler"
            found.append(f"the background {name} has {lacking}, so that no pixel becomes it")
        elif class_id not in asked:
            found.append(f"the class {name} has no concepts, so that no text can find it")
    words: dict[int, set[str]] = {}
    for value, query in vocabulary.queries():
        words.setdefault(value, set()).update(map(normal, query))
    for value, own in words.items():
        for other, more in words.items():
            if value != other and own < more:
                both = f"{vocabulary.owner(value)} is also one of {vocabulary.owner(other)}"
                found.append(f"every concept of {both}, which may take all of its pixels")
    return found


def doubts_of_colors(vocabulary: Vocabulary) -> list[str]:
    """Warnings about classes of equal colours; one line each."""
    names: dict[str, list[str]] = {}
    for entry in vocabulary.classes:
        names.setdefault(entry.color.lower(), []).append(entry.name)
    return [
        f"the classes {' and '.join(same)} have the same colour {color}, so that pictures and "
        "colour masks cannot tell them apart"
        for color, same in names.items()
        if len(same) > 1
    ]
