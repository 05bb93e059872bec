"""Checks on single examples: what is good goes on, what is not is named, and nothing is silently dropped."""

from collections.abc import Iterable

from attune.data.columns import LONGEST
from attune.data.images import decode
from attune.schemas import Problem, TrainingExample


def validate_examples(examples: Iterable[TrainingExample]) -> tuple[list[TrainingExample], list[Problem]]:
    """Sorts examples into usable ones and problems.

    An example with some bad captions and at least one good one is kept with the good ones; its bad ones are
    reported. So is a label or a tag that is too long: the example is kept without it. Captions, labels and tags are
    stripped of white space around them, equal captions of one picture count once, and empty tags are left out.

    Returns:
        The usable examples, in order, and every problem found.
    """
    good: list[TrainingExample] = []
    problems: list[Problem] = []
    for number, example in enumerate(examples, start=1):
        # A copy: a caller that sends its batch again must send the same.
        checked = TrainingExample(
            image=example.image,
            captions=list(dict.fromkeys(text for text in map(str.strip, example.captions) if not _is_blank(text))),
            group=example.group,
            label=_kept(example.label),
            tags={name.strip(): _kept(value) for name, value in example.tags.items() if name.strip() and _kept(value)},
            source=example.source or f"example {number}",
        )
        found = [
            *_image_problems(checked),
            *_caption_problems(checked.source, example.captions),
            *_name_problems(checked.source, example),
        ]
        problems += found
        if checked.captions and not any(problem.field == "image" for problem in found):
            good.append(checked)
    return good, problems


def _image_problems(example: TrainingExample) -> list[Problem]:
    if not example.image:
        return [
            _problem(
                example.source,
                "image",
                "",
                "missing_image",
                "there is no picture. Give its bytes, or a path that exists",
            )
        ]
    try:
        decode(example.image)
    except ValueError as error:
        value = f"{len(example.image)} bytes starting {example.image[:8]!r}"
        return [_problem(example.source, "image", value, "unreadable_image", f"{error}. Replace the file or leave it out")]
    return []


def _caption_problems(source: str, captions: list[str]) -> list[Problem]:
    if not captions:
        return [_problem(source, "captions", "[]", "missing_caption", "there is no caption. Give at least one text")]
    advice = "the caption is empty. Describe the picture in words, or leave the row out"
    return [_problem(source, "captions", repr(text), "empty_caption", advice) for text in captions if _is_blank(text)]


def _kept(name: str) -> str:
    """A label, or a tag's value, as it is stored; empty if it cannot be. Only `nan` is no name: a class may be `none`."""
    name = name.strip()
    return "" if name.lower() == "nan" or len(name) > LONGEST else name


def _name_problems(source: str, example: TrainingExample) -> list[Problem]:
    tags = [("tags", f"tag {name!r}", value.strip()) for name, value in example.tags.items()]
    advice = f"characters, more than {LONGEST}: the example is kept without it. Give a short name"
    return [
        _problem(source, field, value, "too_long", f"the {what} has {len(value)} {advice}")
        for field, what, value in [("label", "label", example.label.strip()), *tags]
        if len(value) > LONGEST
    ]


def _is_blank(text: str) -> bool:
    """Whether a caption says nothing; pandas writes a missing value as `nan`."""
    return text.strip().lower() in ("", "nan", "none", "null")


def _problem(source: str, field: str, value: str, reason: str, advice: str) -> Problem:
    return Problem(source=source, field=field, value=value[:100], reason=reason, advice=advice)
