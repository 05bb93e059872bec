from pathlib import Path

import pytest

from attune.errors import SearchError, SettingsError
from attune.schemas import SearchDocument
from attune.search.index import Index, check_limit


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    monkeypatch.setenv("ATTUNE_HOME", str(tmp_path))
    return Index("animals")


def embedded(key: str, *vector: float, model: str = "one", text: str = "") -> SearchDocument:
    return SearchDocument(key=key, text=text or f"a {key}", embedding=list(vector), model=model)


ANIMALS = [
    embedded("cat", 1.0, 0.0),
    embedded("tiger", 0.8, 0.6),
    embedded("fish", 0.0, 1.0),
    embedded("stone", -1.0, 0.0),
]


def test_gives_the_nearest_first_with_their_cosine(index: Index) -> None:
    index.upsert(ANIMALS)

    [hits] = index.search([embedded("", 1.0, 0.0)], limit=4)

    # Cosines with (1, 0) are the first components.
    assert [(hit.key, hit.text) for hit in hits] == [
        ("cat", "a cat"), ("tiger", "a tiger"), ("fish", "a fish"), ("stone", "a stone")
    ]  # fmt: skip
    assert [hit.score for hit in hits] == pytest.approx([1.0, 0.8, 0.0, -1.0], abs=1e-6)


def test_answers_several_queries_in_their_order(index: Index) -> None:
    index.upsert(ANIMALS)

    hits = index.search([embedded("", 0.0, 1.0), embedded("", -1.0, 0.0), embedded("", 1.0, 0.0)], limit=1)

    assert [hit.key for [hit] in hits] == ["fish", "stone", "cat"]


def test_indexing_a_key_again_replaces_it(index: Index) -> None:
    index.upsert(ANIMALS)
    index.upsert([embedded("cat", 0.0, 1.0, text="first"), embedded("cat", -1.0, 0.0, text="last")])

    [[hit, _]] = index.search([embedded("", -1.0, 0.0)], limit=2)

    assert index.count() == 4
    assert {hit.text} <= {"last", "a stone"}


def test_deletes_by_key_and_passes_over_unknown_ones(index: Index) -> None:
    index.upsert([*ANIMALS, embedded("cat's eye", 0.6, 0.8)])

    assert index.delete(["cat's eye", "fish", "dragon", "' OR 1=1 --"]) == 2
    assert index.count() == 3


def test_another_index_object_sees_what_was_stored(index: Index) -> None:
    other = Index("animals")
    index.upsert(ANIMALS[:2])
    other.upsert(ANIMALS[2:])
    index.optimize()

    assert index.count() == other.count() == 4


def test_an_empty_index_says_to_index_first(index: Index) -> None:
    assert index.count() == 0
    with pytest.raises(SearchError, match=r"'animals' is empty. Send documents to /index first"):
        index.search([embedded("", 1.0, 0.0)], limit=1)


@pytest.mark.parametrize("vector", [(1.0, 0.0), (1.0, 0.0, 0.0)], ids=["same_dimension", "other_dimension"])
def test_vectors_of_two_models_are_never_mixed(index: Index, vector: tuple[float, ...]) -> None:
    index.upsert(ANIMALS)
    stranger = embedded("dog", *vector, model="two")

    with pytest.raises(SearchError, match=r"built with another model .* under a new index name"):
        index.search([stranger], limit=1)
    with pytest.raises(SearchError, match="built with another model"):
        index.upsert([stranger])
    assert index.count() == 4


def test_an_index_emptied_of_documents_takes_another_model(index: Index) -> None:
    index.upsert(ANIMALS)
    index.delete([animal.key for animal in ANIMALS])

    index.upsert([embedded("dog", 0.0, 0.0, 1.0, model="two")])

    assert index.search([embedded("", 0.0, 0.0, 1.0, model="two")], limit=3)[0][0].key == "dog"


def test_nothing_is_stored_if_one_document_has_no_key(index: Index) -> None:
    with pytest.raises(SearchError, match=r"Nothing was indexed: 1 of 2 documents have no key \(document 2\)"):
        index.upsert([ANIMALS[0], embedded("", 1.0, 0.0)])
    assert index.count() == 0


def test_refuses_documents_without_an_embedding(index: Index) -> None:
    with pytest.raises(SearchError, match="not all embedded by one model"):
        index.upsert([ANIMALS[0], SearchDocument(key="dog", text="a dog")])


def test_stays_searchable_over_many_small_writes(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attune.search.index.WRITES_BETWEEN_OPTIMIZE", 5)
    for number in range(12):
        index.upsert([embedded(f"key-{number}", 1.0, number / 100)])

    assert index.count() == 12
    assert index.search([embedded("", 1.0, 0.0)], limit=1)[0][0].key == "key-0"


def test_refuses_a_name_that_leaves_the_folder() -> None:
    with pytest.raises(SettingsError, match=r"index = '../elsewhere' is not a valid name"):
        Index("../elsewhere")


@pytest.mark.parametrize("value", [0, 1001, 2.5, -1, "5", True, None, float("nan"), float("inf")])
def test_refuses_a_limit_that_is_no_count(value: object) -> None:
    with pytest.raises(SearchError, match="give a whole number from 1 to 1000"):
        check_limit(value)


def test_takes_limits_that_travelled_as_floats() -> None:
    assert check_limit(7.0) == 7
