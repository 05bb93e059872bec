"""Which answers are right for which queries, and how right: what all retrieval figures are counted from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from attune.errors import DataError


@dataclass(frozen=True)
class Relevance:
    """The right answers of all queries, as pairs sorted by query and then by answer; every other answer is wrong.

    Made by `from_owner`, `from_labels` or `from_pairs`, which check it. A query may have no right answer at all.

    Attributes:
        query: int64 (pairs,), rows of queries.
        answer: int64 (pairs,), rows of answers.
        grade: float64 (pairs,), above 0: how right the answer is; 1 is plainly right.
        queries: how many there are, with and without a right answer.
        answers: how many there are, right for a query or not.
    """

    query: np.ndarray
    answer: np.ndarray
    grade: np.ndarray
    queries: int
    answers: int


def from_owner(image_of_text: np.ndarray, images: int) -> dict[str, Relevance]:
    """Captions and their pictures, in both directions: `text_to_image` and `image_to_text`.

    Args:
        image_of_text: for each text the row of its picture, int64 (texts,).
        images: how many pictures there are. One without a text is a query without a right answer.

    Raises:
        DataError: if a text's picture is none of them.

    Example:
        `from_owner([0, 0, 1], 2)` has the pairs (0, 0), (1, 0), (2, 1) of texts with pictures, and (0, 0), (0, 1), (1, 2)
        of pictures with texts.
    """
    texts = np.arange(len(image_of_text))
    return {
        "text_to_image": from_pairs(texts, image_of_text, len(texts), images),
        "image_to_text": from_pairs(image_of_text, texts, images, len(texts)),
    }


def from_labels(query_labels: Sequence[str], answer_labels: Sequence[str], exclude_self: bool = False) -> Relevance:
    """Answers with the query's label are right, all alike.

    All pairs are held: a label that n queries share with m answers takes n x m of them, at 24 bytes each.

    Args:
        query_labels: a label for each query; one without a label, "", has no right answer.
        answer_labels: a label for each answer; one without a label is right for nothing.
        exclude_self: queries and answers are the same items, and an item is no answer to itself.

    Raises:
        DataError: if no query has a right answer, or if `exclude_self` is asked for of lists that are not equally long.

    Example:
        `from_labels(["cat", "dog", "cat", ""], ..., exclude_self=True)` of the same list twice has the pairs (0, 2) and
        (2, 0): the dog is alone, and what has no label is like nothing.
    """
    if exclude_self and len(query_labels) != len(answer_labels):
        raise DataError(
            f"exclude_self needs the same items as queries and answers, but there are {len(query_labels)} query labels and "
            f"{len(answer_labels)} answer labels. Give the same list twice, or leave exclude_self out"
        )
    names, codes = np.unique(np.asarray([*query_labels, *answer_labels], dtype=np.str_), return_inverse=True)
    of_query, of_answer = codes[: len(query_labels)], codes[len(query_labels) :]
    by_label = np.argsort(of_answer, kind="stable")
    first, end = (np.searchsorted(of_answer[by_label], of_query, side) for side in ("left", "right"))
    counts = np.where(names[of_query] == "", 0, end - first)
    query = np.repeat(np.arange(len(of_query)), counts)
    answer = by_label[np.repeat(first, counts) + counted_out(counts)]
    kept = query != answer if exclude_self else slice(None)
    return from_pairs(query[kept], answer[kept], len(of_query), len(of_answer))


def from_pairs(
    query: Sequence[int] | np.ndarray,
    answer: Sequence[int] | np.ndarray,
    queries: int,
    answers: int,
    grade: Sequence[float] | np.ndarray | None = None,
) -> Relevance:
    """Right answers named one by one, in any order.

    Args:
        query: row of each pair's query.
        answer: row of each pair's answer.
        queries: how many there are.
        answers: how many there are.
        grade: of each pair, above 0; all are 1 if not given. A wrong answer is a pair that is left out.

    Raises:
        DataError: if there are no pairs, or not as many of each; if a row is out of range, a pair is named twice, or a
            grade is not a number above 0.
    """
    asked, given = np.asarray(query, dtype=np.int64), np.asarray(answer, dtype=np.int64)
    grades = np.ones(len(asked)) if grade is None else np.asarray(grade, dtype=np.float64)
    if not len(asked) == len(given) == len(grades):
        raise DataError(
            f"a pair is a query, an answer and a grade, but there are {len(asked)}, {len(given)} and {len(grades)}. "
            "Give as many of each"
        )
    if not len(asked):
        raise DataError(
            f"none of the {queries} queries has a right answer among the {answers} answers, so there is nothing to measure. "
            "Check that queries and answers share labels, or name some pairs"
        )
    for name, rows, count in (("query", asked, queries), ("answer", given, answers)):
        _refuse((rows < 0) | (rows >= count), rows, f"{name} must be a row from 0 to {count - 1}")
    _refuse(~((grades > 0) & np.isfinite(grades)), grades, "a grade must be a number above 0; leave wrong answers out")
    order = np.lexsort((given, asked))
    asked, given, grades = asked[order], given[order], grades[order]
    twice = np.flatnonzero((np.diff(asked) == 0) & (np.diff(given) == 0))
    if len(twice):
        raise DataError(
            f"the pair of query {asked[twice[0]]} and answer {given[twice[0]]} is named more than once; {len(twice)} "
            "such pairs. Name each once"
        )
    return Relevance(asked, given, grades, queries, answers)


def counted_out(counts: np.ndarray) -> np.ndarray:
    """0 to count - 1 for each count, one after the other: int64 (sum of counts,). [2, 3] gives [0, 1, 0, 1, 2]."""
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    return np.asarray(np.arange(len(starts)) - starts)


def _refuse(bad: np.ndarray, values: np.ndarray, rule: str) -> None:
    """Raises with the first of the bad values."""
    found = np.flatnonzero(bad)
    if len(found):
        raise DataError(f"{rule}, but pair {found[0]} has {values[found[0]]}; {len(found)} of {len(bad)} pairs are bad")
