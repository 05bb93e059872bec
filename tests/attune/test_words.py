from collections import Counter
from functools import partial

import numpy as np
import pytest

from attune.data.captions import Captions
from attune.data.pairs import Pairs
from attune.data.words import change_captions, drop_words, mix_captions, paraphrased, plain
from attune.schemas import TrainingExample
from tests.attune.test_captions import words_to_tokens


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A red circle.", "a  red circle"),
        ("well-known place", "Well known\tPLACE!"),
        ("Straße", "STRASSE"),
        ("ｆｕｌｌ width", "full width"),
        ("café", "cafe\u0301"),
        ("“quoted”", "quoted"),
        ("¿qué?", "QUÉ"),
    ],
)
def test_case_punctuation_and_spaces_make_no_other_caption(one: str, other: str) -> None:
    assert plain(one) == plain(other)


@pytest.mark.parametrize(("one", "other"), [("1.5 m", "15 m"), ("a dog", "a cat"), ("?", "!"), ("🔴", "🟢"), ("कि", "का")])
def test_what_means_something_else_stays_another_caption(one: str, other: str) -> None:
    assert plain(one) != plain(other)


def test_words_are_dropped_at_the_rate_asked_for_and_keep_their_order() -> None:
    rng = np.random.default_rng(0)
    text = " ".join(map(str, range(1000)))

    kept = [int(word) for word in drop_words(text, 0.3, rng).split()]

    assert kept == sorted(kept)
    assert 650 < len(kept) < 750  # 700 expected, standard deviation 14.5


def test_a_caption_is_never_emptied() -> None:
    rng = np.random.default_rng(0)
    assert {drop_words("red green blue", 1.0, rng) for _ in range(50)} == {"red", "green", "blue"}
    assert drop_words("red", 1.0, rng) == "red"


def test_a_caption_that_loses_nothing_is_the_very_text() -> None:
    assert drop_words(" two  spaces ", 0.0, np.random.default_rng(0)) == " two  spaces "


def test_two_captions_are_joined_in_either_order() -> None:
    rng = np.random.default_rng(0)
    assert {mix_captions(["a dog", "It runs."], rng) for _ in range(40)} == {"a dog. It runs.", "It runs. a dog"}
    assert {mix_captions(list("abc"), rng) for _ in range(200)} == {"a. b", "a. c", "b. a", "b. c", "c. a", "c. b"}


def test_a_lone_caption_is_not_joined_with_itself() -> None:
    rng = np.random.default_rng(0)
    assert mix_captions(["a dog"], rng) == "a dog"
    assert change_captions(["a dog"], [["a dog"]], rng, caption_mixing=1.0) == ["a dog"]


def test_without_either_setting_nothing_changes() -> None:
    assert change_captions(["a b", "c d"], [["a b", "x"], ["c d"]], np.random.default_rng(0)) == ["a b", "c d"]


def test_a_mixed_caption_holds_the_one_that_was_drawn_and_another_of_its_picture() -> None:
    rng = np.random.default_rng(0)
    texts, siblings = ["one"] * 400, [["one", "two", "three"]] * 400

    changed = Counter(change_captions(texts, siblings, rng, caption_mixing=0.5))

    assert set(changed) == {"one", "one. two", "two. one", "one. three", "three. one"}
    assert 150 < changed["one"] < 250  # 200 expected, standard deviation 10


def test_both_changes_work_together_and_reach_the_tokens() -> None:
    captions = Captions(words_to_tokens, Pairs("", ["1", "2"], [["1 2 3", "4 5 6"], ["7 8 9"]], ["1", "2"]))
    change = partial(change_captions, word_dropout=0.4, caption_mixing=1.0)
    rng = np.random.default_rng(0)

    samples = [captions.sample(np.array([0, 1]), turn, rng, change) for turn in range(30)]

    mixed = {tuple(sample.tokens[0].tolist()) for sample in samples}
    alone = {tuple(sample.tokens[1].tolist()) for sample in samples}
    assert max(sum(token > 0 for token in tokens) for tokens in mixed) > 3
    assert len(alone) > 3
    assert all(set(tokens) <= {0, 7, 8, 9} and any(tokens) for tokens in alone)


def example(*captions: str) -> TrainingExample:
    return TrainingExample(image=b"picture", captions=list(captions), group="g", source="here")


def test_paraphrases_come_after_the_originals_in_turns() -> None:
    known = {"a dog": ["A dog.", "a hound"], "one dog": ["a single dog"], "a cat": []}

    first, second = paraphrased(
        [example("a dog", "one dog"), example("a cat")], lambda texts: [known[text] for text in texts]
    )

    assert first.captions == ["a dog", "one dog", "a single dog", "a hound"]
    assert second.captions == ["a cat"]
    assert (first.image, first.group, first.source) == (b"picture", "g", "here")


def test_paraphrases_have_the_scores_of_their_captions_and_all_else_stays() -> None:
    graded = TrainingExample(text="q", captions=["a dog", "a cat"], scores=[0.9, 0.1])
    taught = TrainingExample(text="q", captions=["a dog"], negatives=["a cow"], margins=[0.5], tags={"from": "here"})
    known = {"a dog": ["a hound"], "a cat": ["a kitten"]}

    first, second = paraphrased([graded, taught], lambda texts: [known[text] for text in texts])

    assert (first.captions, first.scores) == (["a dog", "a cat", "a hound", "a kitten"], [0.9, 0.1, 0.9, 0.1])
    assert second.captions == ["a dog", "a hound"]
    assert (second.negatives, second.margins, second.tags) == (["a cow"], [0.5], {"from": "here"})


def test_paraphrases_fill_up_to_the_limit_and_originals_are_never_cut() -> None:
    def numbered(texts: list[str]) -> list[list[str]]:
        return [[f"{text} {number}" for number in range(9)] for text in texts]

    few, many = paraphrased([example("a", "b"), example(*"cdefgh")], numbered, limit=5)

    assert few.captions == ["a", "b", "a 0", "b 0", "a 1"]
    assert many.captions == list("cdefgh")


def test_paraphrases_are_new_not_blank_and_leave_the_examples_as_they_were() -> None:
    before = example("a dog")

    (after,) = paraphrased([before], lambda texts: [["", "  ", "A DOG!", " the dog ", "The dog"] for _ in texts])

    assert after.captions == ["a dog", "the dog"]
    assert before.captions == ["a dog"]


def test_every_caption_is_paraphrased_once_for_all_its_pictures() -> None:
    asked = []

    def note(texts: list[str]) -> list[list[str]]:
        asked.append(texts)
        return [[f"{text} again"] for text in texts]

    done = paraphrased([example("a", "b"), example("b")], note)

    assert asked == [["a", "b"]]
    assert [each.captions for each in done] == [["a", "b", "a again", "b again"], ["b", "b again"]]


def test_answers_that_do_not_match_the_questions_are_refused() -> None:
    with pytest.raises(ValueError, match="given 2 captions and gave back 1 answers"):
        paraphrased([example("a", "b")], lambda texts: [[text] for text in texts[1:]])
