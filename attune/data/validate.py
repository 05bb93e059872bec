"""Checks on single examples: what is good goes on, what is not is named, and nothing is silently dropped."""

from collections.abc import Iterable, Iterator

from attune.characters import visible, without_controls
from attune.data.columns import LONGEST
from attune.data.embeddings import canonical, carried, dimension_of, is_embedding, read_embedding
from attune.data.images import decode
from attune.data.shards import LISTS
from attune.data.uri import UriError, read_uris
from attune.schemas import Problem, TrainingExample

LONGEST_CAPTION = 10_000
"""Characters; CLIP reads the first few hundred."""

LONGEST_SOURCE = 500

MOST_TAGS = 100

MOST_OF_EACH = 1000
"""Pictures that belong to one, and negatives: a request's bytes do not bound the work that they are."""

LARGEST_NUMBER = 1e6
"""Of scores and margins, which training computes with in float32."""

NEEDED = ("image", "embedding", "uri", "group", "scores", "margins")
"""Fields without which, if anything is wrong with them, an example is of no use."""

REFUSED = ("two_items", "empty_text", "long_text", "two_kinds")
"""Reasons why a text or an embedding cannot stand in a picture's place, and why pictures cannot stand in captions'."""

Read = bytes | UriError
"""A picture, or an embedding in its place, or why it could not be read from its address."""


def validate_examples(examples: Iterable[TrainingExample]) -> tuple[list[TrainingExample], list[Problem]]:
    """Sorts examples into usable ones and problems.

    An example with some bad captions and at least one good one is kept with the good ones; its bad ones are
    reported; so it is with pictures in the captions' place. So is a label or a tag that is too long: the example is kept
    without it. Captions, labels and tags are stripped of white space around them and of control characters, equal captions
    of one picture count once, and empty tags are left out; so is a text that stands in a picture's place. Negatives are
    treated as captions are. Scores and margins belong to their texts: without one for each an example is not used, nor is
    one that has them, or negatives, with pictures in the captions' place, or without captions. A text may be alone, and a
    picture or an embedding that has a label; but where half of the examples or more have something that belongs to them, it
    is missing from the others. Pictures that are given by `uri` and `uris` are read, if the service's
    settings allow it. Embeddings become pictures of a kind, see `attune.data.embeddings`.

    Returns:
        The usable examples, in order, and every problem found.
    """
    examples = [example if _too_many(example) else carried(example) for example in examples]
    good: list[TrainingExample] = []
    problems: list[Problem] = []
    for number, (example, (image, found_matches)) in enumerate(zip(examples, _images(examples), strict=True), start=1):
        if field := _too_many(example):
            source = visible(example.source)[:LONGEST_SOURCE] or f"example {number}"
            advice = f"an example has at most {MOST_OF_EACH:,} of them. Make several examples of it"
            problems.append(_problem(source, field, f"{len(getattr(example, field))} {field}", "too_many", advice))
            continue
        matches = [(uri, data, _problem_of_match(data, image)) for uri, data in found_matches]
        captions = _numbered(example.captions, example.scores)
        own = {text for text, _ in captions}
        negatives = [(text, margin) for text, margin in _numbered(example.negatives, example.margins) if text not in own]
        tags = {_clean(name): _kept(value) for name, value in example.tags.items()}
        # A copy: a caller that sends its batch again must send the same.
        checked = TrainingExample(
            image=image if isinstance(image, bytes) else b"",
            text=_clean(example.text),
            captions=[text for text, _ in captions],
            images=list(dict.fromkeys(data for _, data, wrong in matches if isinstance(data, bytes) and wrong is None)),
            scores=[score for _, score in captions if score is not None],
            negatives=[text for text, _ in negatives],
            margins=[margin for _, margin in negatives if margin is not None],
            group=_clean(example.group),
            label=_kept(example.label),
            tags=dict([(name, value) for name, value in tags.items() if value and 0 < len(name) <= LONGEST][:MOST_TAGS]),
            source=visible(example.source)[:LONGEST_SOURCE] or f"example {number}",
        )
        found = [
            *(_text_problems(checked, example) if example.text else _image_problems(checked, example.uri, image)),
            *_embedding_problems(checked.source, example),
            *(
                _match_problems(checked.source, matches, example, checked.image)
                if matches
                else _alone_problems(checked, example)
                if is_embedding(checked.image)
                else [
                    *_caption_problems(checked, example),
                    *_negative_problems(checked.source, example.negatives, own),
                    *_number_problems(checked.source, example),
                ]
            ),
            *_name_problems(checked.source, example),
            *_control_problems(checked.source, example),
        ]
        problems += found
        refused = any(problem.field in NEEDED or problem.reason in REFUSED for problem in found)
        single = not example.captions and not matches and (checked.text or checked.label)
        if (checked.captions or checked.images or single) and not refused:
            good.append(checked)
    return _of_one_sort(good, problems)


def _of_one_sort(good: list[TrainingExample], problems: list[Problem]) -> tuple[list[TrainingExample], list[Problem]]:
    """Sets aside the examples to which nothing belongs where something does to as many others or more: it is missing."""
    paired = [example for example in good if example.captions or example.images]
    if len(paired) == len(good) or 2 * len(paired) < len(good):
        return good, problems
    advice = "there is no caption, and the other examples have some. Give at least one, or push it under another name"
    single = [example for example in good if not (example.captions or example.images)]
    found = [_problem(example.source, "captions", "[]", "missing_caption", advice) for example in single]
    return paired, [*problems, *found]


def _images(examples: list[TrainingExample]) -> Iterator[tuple[Read, list[tuple[str, Read]]]]:
    """Each example's picture, and those that belong to it, with their addresses if they have one."""
    read = iter(read_uris([uri for example in examples for uri in addresses(example)]))
    for example in examples:
        found = {uri: next(read) for uri in addresses(example)}
        given = [("", image) for image in dict.fromkeys(map(canonical, example.images))]
        read_too = ((uri, canonical(found.get(uri, b""))) for uri in example.uris)
        yield canonical(example.image or found.get(example.uri, b"")), [*given, *read_too]


def addresses(example: TrainingExample) -> list[str]:
    """Where the service is to read an example's pictures itself. One with a text, or too many, is refused unread."""
    own = [example.uri] if example.uri and not example.image else []
    return [] if example.text or _too_many(example) else list(dict.fromkeys([*own, *filter(None, example.uris)]))


def _too_many(example: TrainingExample) -> str | None:
    """The field of which there are more than an example may have."""
    fields = ("images", "embeddings", "uris", "negatives")
    return next((field for field in fields if len(getattr(example, field)) > MOST_OF_EACH), None)


def _image_problems(example: TrainingExample, uri: str, image: Read) -> list[Problem]:
    if isinstance(image, UriError):
        return [_problem(example.source, "uri", uri, image.reason, str(image))]
    if not image:
        advice = (
            "there is no picture, and no text or embedding in its place. Give the picture's bytes or a path that exists, "
            "the text, or one row of numbers"
        )
        return [_problem(example.source, "image", uri, "missing_image", advice)]
    try:
        _look_at(image)
    except ValueError as error:
        # Of what was read from an address nothing is shown: it may be no picture, and not for the caller.
        value = uri or f"{len(image)} bytes starting {image[:8]!r}"
        what = "embedding" if is_embedding(image) else "image"
        advice = f"{error}. Replace {'it' if what == 'embedding' else 'the file'} or leave it out"
        return [_problem(example.source, what, value, f"unreadable_{what}", advice)]
    return []


def _look_at(data: bytes) -> None:
    """Raises ValueError, with the reason, of what is neither a picture nor an embedding."""
    if is_embedding(data):
        read_embedding(data)
    else:
        decode(data)


def _embedding_problems(source: str, given: TrainingExample) -> list[Problem]:
    """What is wrong with embeddings that were left where they were, beside pictures or texts."""
    if given.embedding:
        advice = "there are an embedding and a picture or a text, and an example is of one of them. Give one"
        return [_problem(source, "embedding", f"{len(given.embedding)} numbers", "two_items", advice)]
    if given.embeddings:
        advice = "there are embeddings and pictures that belong to it, and an example has the ones or the others. Give one"
        return [_problem(source, "embeddings", f"{len(given.embeddings)} embeddings", "two_kinds", advice)]
    return []


def _alone_problems(checked: TrainingExample, given: TrainingExample) -> list[Problem]:
    """What is wrong with an embedding that no other one belongs to."""
    if given.captions:
        advice = "captions are texts, and no model embeds both. Give, in `embeddings`, those that belong to the embedding"
        return [_problem(checked.source, "captions", given.captions[0], "two_kinds", advice)]
    if lists := [name for name in LISTS if getattr(given, name)]:
        advice = f"there are {' and '.join(lists)} beside an embedding, and those are for captions. Leave them out"
        return [_problem(checked.source, lists[0], str(getattr(given, lists[0])), "two_kinds", advice)]
    if checked.label:
        return []
    advice = "no embedding belongs to it, and it has no label. Give at least one in `embeddings`, or its class as a label"
    return [_problem(checked.source, "embeddings", "[]", "missing_match", advice)]


def _match_problems(
    source: str, matches: list[tuple[str, Read, tuple[str, str] | None]], given: TrainingExample, item: bytes
) -> list[Problem]:
    """What is wrong with the pictures that belong to an example's picture, or with the embeddings of one."""
    if given.text or given.captions:
        advice = "there are pictures that belong to it and texts, and an example has the one or the other. Give one"
        found = given.text or given.captions[0]
        return [_problem(source, "images", found, "two_kinds", advice)]
    if of_captions := [name for name in LISTS if getattr(given, name)]:
        advice = (
            f"there are pictures that belong to it and {' and '.join(of_captions)}, and those are for captions that are "
            "texts. Leave them out: all of these pictures are right answers"
        )
        return [_problem(source, field, str(getattr(given, field)), "two_kinds", advice) for field in of_captions[:1]]
    problems = []
    for number, (uri, data, wrong) in enumerate(matches, start=1):
        if wrong is not None:
            reason, advice = wrong
            value = uri or (f"{len(data)} bytes starting {data[:8]!r}" if isinstance(data, bytes) and data else "")
            of_embedding = isinstance(data, bytes) and is_embedding(data or item)  # what is not there is of the item's kind
            what = f"{'embedding' if of_embedding else 'picture' if data or item or uri else 'match'} {number} of those that"
            field = "uris" if uri else "embeddings" if of_embedding else "images"
            problems.append(_problem(source, field, value, reason, f"{what} belong to it: {advice}"))
    return problems


def _problem_of_match(data: Read, image: Read) -> tuple[str, str] | None:
    """Reason and advice, if a picture cannot be another's match."""
    if isinstance(data, UriError):
        return data.reason, str(data)
    if not data:
        if isinstance(image, bytes) and is_embedding(image):
            return "missing_match", "it is not there, or is not one row of numbers. Give one, or leave it out"
        advice = "it is not there. Give the picture's bytes or a path that exists, or one row of numbers, or leave it out"
        return "missing_match", advice
    if data == image:
        what = "embedding" if is_embedding(data) else "picture"
        return "same_picture", f"it is the very {what} that it belongs to. Give another one, or leave it out"
    try:
        _look_at(data)
    except ValueError as error:
        return "unreadable_match", f"{error}. Replace it or leave it out"
    if not isinstance(image, bytes) or not image:
        return None
    if is_embedding(data) != is_embedding(image):
        return "two_kinds", "of it and what it belongs to, one is a picture and one an embedding. Give both alike"
    own, others = dimension_of(data), dimension_of(image)
    if own != others and others:
        return "other_length", f"it has {own} numbers, and what it belongs to {others}. Give embeddings of one model"
    return None


def _text_problems(checked: TrainingExample, given: TrainingExample) -> list[Problem]:
    """What is wrong with a text that stands in a picture's place."""
    if given.image or given.uri:
        advice = "there are a picture and a text, and an example is of one of them. Give one; what describes it is a caption"
        return [_problem(checked.source, "text", given.text, "two_items", advice)]
    if _is_blank(checked.text):
        advice = "the text is empty. Give the query or the sentence, or leave the row out"
        return [_problem(checked.source, "text", repr(given.text[:100]), "empty_text", advice)]
    if len(checked.text) > LONGEST_CAPTION:
        advice = f"the text has more than {LONGEST_CAPTION:,} characters. Give a sentence or two"
        return [_problem(checked.source, "text", given.text, "long_text", advice)]
    return []


def _caption_problems(checked: TrainingExample, given: TrainingExample) -> list[Problem]:
    source, captions = checked.source, given.captions
    if not captions:
        if lists := [name for name in LISTS if getattr(given, name)]:
            without = f"there are {' and '.join(lists)} and no captions for them. Give captions, or leave them out"
            return [_problem(source, lists[0], str(getattr(given, lists[0])), "two_kinds", without)]
        if checked.text or checked.label:
            return []
        missing = "there is no caption, and no label either. Give a text that describes it, or its class as a label"
        return [_problem(source, "captions", "[]", "missing_caption", missing)]
    wanted = "Give a text that belongs to the other" if given.text else "Describe the picture in words"
    advice = {
        "empty_caption": f"the caption is empty. {wanted}, or leave the row out",
        "too_long": f"the caption has more than {LONGEST_CAPTION:,} characters. Give a sentence or two",
    }
    reasons = [(text, _problem_of_caption(_clean(text))) for text in captions]
    return [_problem(source, "captions", repr(text[:100]), reason, advice[reason]) for text, reason in reasons if reason]


def _negative_problems(source: str, negatives: list[str], captions: set[str]) -> list[Problem]:
    """What is wrong with texts that are said to be wrong answers; `captions` are the right ones."""
    advice = {
        "empty_negative": "the negative is empty. Give a text, or none",
        "too_long": f"the negative has more than {LONGEST_CAPTION:,} characters. Give a sentence or two",
        "negative_is_caption": "the negative is a caption of the same example as well: it counts as a caption. Give it once",
    }
    problems = []
    for text in negatives:
        reason = _problem_of_caption(_clean(text))
        reason = "empty_negative" if reason == "empty_caption" else reason
        if reason is None and _clean(text) in captions:
            reason = "negative_is_caption"
        if reason:
            problems.append(_problem(source, "negatives", repr(text[:100]), reason, advice[reason]))
    return problems


def _number_problems(source: str, example: TrainingExample) -> list[Problem]:
    """What is wrong with the numbers that belong to captions and negatives."""
    problems = []
    for field, numbers, of, texts in (
        ("scores", example.scores, "captions", example.captions),
        ("margins", example.margins, "negatives", example.negatives),
    ):
        if numbers and len(numbers) != len(texts):
            advice = f"there are {len(numbers)} {field} of {len(texts)} {of}. Give each one its own, or none of them"
            problems.append(_problem(source, field, str(numbers), "number_count", advice))
        elif bad := [number for number in numbers if not abs(number) <= LARGEST_NUMBER]:
            advice = (
                f"{len(bad)} of the {field} are missing, no numbers, or beyond {LARGEST_NUMBER:,.0f}. Give each of the {of} "
                "a number below that"
            )
            problems.append(_problem(source, field, str(numbers), "no_number", advice))
    if example.scores and example.negatives:
        advice = (
            "there are scores and negatives: captions with scores are neither right nor wrong. Give wrong ones among the "
            "captions, with low scores, or leave the scores out"
        )
        problems.append(_problem(source, "scores", str(example.scores), "scores_and_negatives", advice))
    return problems


def _numbered(texts: list[str], numbers: list[float]) -> list[tuple[str, float | None]]:
    """The good ones among texts, cleaned and each once, with their numbers; None if there is not one for each."""
    paired = zip(texts, numbers if len(numbers) == len(texts) else [None] * len(texts), strict=True)
    known: dict[str, float | None] = {}
    for text, number in paired:
        if _problem_of_caption(text := _clean(text)) is None:
            known.setdefault(text, number)
    return list(known.items())


def _problem_of_caption(text: str) -> str | None:
    if _is_blank(text):
        return "empty_caption"
    return "too_long" if len(text) > LONGEST_CAPTION else None


def _clean(text: str) -> str:
    return without_controls(text).strip()


def _kept(name: str) -> str:
    """A label, or a tag's value, as it is stored; empty if it is too long. A class may be called `none`, or `nan`."""
    name = _clean(name)
    return "" if len(name) > LONGEST else name


def _name_problems(source: str, example: TrainingExample) -> list[Problem]:
    tags = [("tags", f"tag {name[:LONGEST]!r}", value.strip()) for name, value in example.tags.items()]
    names = [("tags", "name of a tag", name.strip()) for name in example.tags]
    advice = f"characters, more than {LONGEST}: the example is kept without it. Give a short name"
    problems = [
        _problem(source, field, value, "too_long", f"the {what} has {len(value)} {advice}")
        for field, what, value in [("label", "label", example.label.strip()), *tags, *names]
        if len(value) > LONGEST
    ]
    if len(example.tags) > MOST_TAGS:
        advice = f"there are {len(example.tags)} tags: the example is kept with the first {MOST_TAGS}. Give fewer"
        problems.append(_problem(source, "tags", "", "too_many_tags", advice))
    if len(example.group) > LONGEST_CAPTION:
        advice = f"the group has {len(example.group)} characters, more than {LONGEST_CAPTION:,}. Give a short name"
        problems.append(_problem(source, "group", example.group, "too_long", advice))
    return problems


def _control_problems(source: str, example: TrainingExample) -> list[Problem]:
    texts = {"text": [example.text], "captions": example.captions, "negatives": example.negatives}
    texts |= {"label": [example.label], "group": [example.group]}
    texts["tags"] = [text for pair in example.tags.items() for text in pair]
    advice = "there are control characters in it: they were taken out. Save the text as plain UTF-8"
    return [
        _problem(source, field, text, "control_characters", advice)
        for field, found in texts.items()
        for text in found
        if without_controls(text) != text
    ]


def _is_blank(text: str) -> bool:
    """Whether a caption says nothing; pandas writes a missing value as `nan`."""
    return text.strip().lower() in ("", "nan", "none", "null")


def _problem(source: str, field: str, value: str, reason: str, advice: str) -> Problem:
    return Problem(source=source, field=field, value=visible(value[:100]), reason=reason, advice=advice)
