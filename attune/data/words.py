"""Captions said in other words: changed at random in training, or paraphrased before they are pushed."""

import functools
import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest

import numpy as np

from attune.schemas import TrainingExample


def plain(text: str) -> str:
    """A text without what does not change its meaning: Unicode NFKC, case folded, punctuation and extra spaces gone.

    Punctuation becomes a space, so that `1.5 m` and `15 m` stay two texts. A text of nothing but punctuation keeps it.

    Example:
        `"A  red-brown DOG."` and `"a red brown dog"` both give `"a red brown dog"`.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.translate(_punctuation()).split()) or "".join(folded.split())


def drop_words(text: str, rate: float, rng: np.random.Generator) -> str:
    """The text without some of its words (random deletion of EDA, Wei and Zou 2019, arXiv:1901.11196).

    Args:
        text: a caption. Words are what white space separates; a caption of one word stays as it is.
        rate: probability (0 to 1) of each word to go.
        rng: source of the choice.

    Returns:
        The words that stay, joined by single spaces; one word at random if all were to go. If none goes, the very text.
    """
    words = text.split()
    stays = rng.random(len(words)) >= rate
    if stays.all():
        return text
    return " ".join(word for word, stay in zip(words, stays, strict=True) if stay) or words[rng.integers(len(words))]


def mix_captions(captions: Sequence[str], rng: np.random.Generator) -> str:
    """Two captions of one picture, chosen at random, one after the other; the only one if there are no two."""
    if len(captions) < 2:
        return captions[0]
    first, second = (captions[number] for number in rng.choice(len(captions), size=2, replace=False))
    start = first.rstrip()
    return f"{start} {second}" if start.endswith((".", "!", "?")) else f"{start}. {second}"


def change_captions(
    texts: Sequence[str],
    siblings: Sequence[Sequence[str]],
    rng: np.random.Generator,
    *,
    word_dropout: float = 0.0,
    caption_mixing: float = 0.0,
) -> list[str]:
    """Each caption changed at random: perhaps joined with another one of its picture, then without some words.

    With the two rates filled in by `functools.partial`, this is the `change` that `Captions.sample` takes.

    Args:
        texts: captions.
        siblings: for each of them all captions of its picture, itself among them.
        rng: source of all choices.
        word_dropout: probability (0 to 1) of each word to go.
        caption_mixing: probability (0 to 1) of a caption to be joined with another one of the same picture.

    Returns:
        As many captions, of the same pictures. One of which neither happens is the very text it was.
    """
    changed = list(texts)
    if caption_mixing:
        for number in np.flatnonzero(rng.random(len(changed)) < caption_mixing).tolist():
            own = changed[number]
            others = [text for text in siblings[number] if text != own]
            if others:
                changed[number] = mix_captions([own, others[rng.integers(len(others))]], rng)
    if word_dropout:
        changed = [drop_words(text, word_dropout, rng) for text in changed]
    return changed


def paraphrased(
    examples: Iterable[TrainingExample], paraphrase: Callable[[list[str]], list[list[str]]], limit: int = 5
) -> list[TrainingExample]:
    """Examples with more captions each: what `paraphrase` makes of those they have. For use before a dataset is pushed.

    Translating captions to another language and back is how CLIP-rsicd (github.com/arampacha/CLIP-rsicd) filled its
    pictures up to five different captions. The translation is the caller's own function and runs with the caller.

    Args:
        examples: as they would be pushed; they are left as they are.
        paraphrase: takes all different captions at once, gives for each any number of other ways to say it.
        limit: the most captions an example is filled up to; one that has more keeps them all.

    Returns:
        New examples. Their own captions come first, then the first paraphrase of each caption, then the second ones.
        Nothing is added that differs from what is there only in case, punctuation or spaces. A paraphrase has the score
        of its caption, if there are any.

    Raises:
        ValueError: if `paraphrase` gives back another number of answers than it got captions.

    Example:
        With captions `["a dog", "one dog"]` and paraphrases `["A dog.", "a hound"]` and `["a single dog"]`, the
        captions become `["a dog", "one dog", "a single dog", "a hound"]`.
    """
    examples = list(examples)
    texts = list(dict.fromkeys(text for example in examples for text in example.captions))
    answers = paraphrase(texts) if texts else []
    if len(answers) != len(texts):
        raise ValueError(f"paraphrase was given {len(texts)} captions and gave back {len(answers)} answers, not one each")
    known = dict(zip(texts, answers, strict=True))
    return [_with_more(example, [known[text] for text in example.captions], limit) for example in examples]


def _with_more(example: TrainingExample, answers: list[list[str]], limit: int) -> TrainingExample:
    """The example with those answers that are new after its captions, up to `limit` in all; each has its caption's score."""
    captions, scores = list(example.captions), list(example.scores)
    seen = {"", *map(plain, captions)}
    for turn in zip_longest(*answers, fillvalue=""):  # a turn: one answer for each caption
        for place, text in enumerate(turn):
            if len(captions) < limit and plain(text) not in seen:
                seen.add(plain(text))
                captions.append(text.strip())
                scores += example.scores[place : place + 1]
    said = {name: getattr(example, name) for name in TrainingExample.model_fields if name != "id"}
    return TrainingExample(**said | {"captions": captions, "scores": scores})


@functools.cache
def _punctuation() -> dict[int, str]:
    """Table for `str.translate`: every character that Unicode calls punctuation becomes a space."""
    codes = range(sys.maxunicode + 1)
    return {code: " " for code in codes if unicodedata.category(chr(code)).startswith("P")}
