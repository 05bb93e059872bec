"""Pairs of pictures as data: read, checked, stored, and what counts as the same."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attune.data import store, uploads
from attune.data.captions import Captions
from attune.data.duplicates import Duplicates, mean_colours, picture_hashes
from attune.data.keys import batch_key
from attune.data.pairs import Pairs, joined, load_pairs
from attune.data.pixels import open_pixels
from attune.data.read import count_examples, read_examples
from attune.data.shards import find_parts
from attune.data.validate import validate_examples
from attune.errors import DataError
from attune.evaluation.leakage import find_match_leaks
from attune.kinds import MATCH
from attune.schemas import MAX_IMAGE_BYTES, DatasetReport, TrainingExample
from tests.attune.matches import drawings
from tests.attune.test_captions import words_to_tokens
from tests.attune.test_duplicates import as_jpeg, photograph
from tests.attune.texts import questions
from tests.conftest import picture

Push = Callable[..., DatasetReport]
RED, GREEN, BLUE, PINK = (picture(colour) for colour in ("red", "green", "blue", "pink"))


def sha(image: bytes) -> str:
    return hashlib.sha256(image).hexdigest()


def test_pushed_pairs_are_counted_as_pictures_with_matches_and_found_again(attune_home: Path, push: Push) -> None:
    examples = drawings(20, matches=2)

    report = push("drawings", examples)

    assert (report.images, report.texts, report.captions, report.matches, report.groups) == (20, 0, 0, 40, 20)
    assert (report.kind, report.items, report.belonging) == (MATCH, 20, 40)
    [listed] = store.list_datasets()
    assert (listed.kind, listed.matches, listed.fingerprint) == (MATCH, 40, report.fingerprint)
    pairs = load_pairs(report.fingerprint)
    assert pairs.kind is MATCH
    assert dict(zip(pairs.images, pairs.captions, strict=True)) == {
        sha(one.image): [sha(image) for image in one.images] for one in examples
    }
    assert pairs.names[0] == f"{pairs.labels[0]} {pairs.images[0][:12]}"
    assert pairs.caption_names[2] == f"{pairs.labels[1]} {pairs.texts[2][:12]}"
    taken = pairs.take([7, 2])
    assert (taken.kind, taken.captions) == (MATCH, [pairs.captions[7], pairs.captions[2]])
    assert joined([taken, pairs.take([0])]).kind is MATCH


def test_the_fingerprint_of_matches_follows_from_their_content_and_is_not_that_of_captions(
    attune_home: Path, push: Push
) -> None:
    first = push("first", drawings(12), batch_size=12)

    assert push("second", drawings(12)[::-1], batch_size=5).fingerprint == first.fingerprint
    assert push("third", drawings(11)).fingerprint != first.fingerprint
    row = json.dumps([sha(RED), [], sha(RED), "", "{}", [sha(GREEN)]])
    known = push("known", [TrainingExample(image=RED, images=[GREEN])]).fingerprint
    assert known == hashlib.sha256(row.encode()).hexdigest()
    assert push("digests", [TrainingExample(image=RED, captions=[sha(GREEN)])]).fingerprint != known


def test_each_picture_is_stored_and_decoded_once(attune_home: Path, push: Push) -> None:
    examples = [
        TrainingExample(image=RED, images=[BLUE, PINK], source="1"),
        TrainingExample(image=GREEN, images=[BLUE, RED], source="2"),  # of which one is an item, and one is there
    ]

    report = push("shared", examples)

    [part] = find_parts(store.content_folder(report.fingerprint))
    assert sorted(pq.read_table(part)["image_sha256"].to_pylist()) == sorted(map(sha, (RED, GREEN, BLUE, PINK)))
    manifest = json.loads((part.parent / "manifest.json").read_text())
    assert (manifest["images"], manifest["matches"], manifest["pictures"]) == (2, 4, 4)
    preprocess = {"size": 8, "mode": "RGB", "interpolation": "bicubic", "resize_mode": "shortest", "fill_color": 0}
    cache = open_pixels(report.fingerprint, preprocess, lambda image: image.resize((8, 8)))
    assert len(cache.pixels) == 4
    pairs = load_pairs(report.fingerprint)
    blue, red = (cache.pixels[cache.rows([sha(image)])[0]].mean((1, 2)) for image in (BLUE, RED))
    assert blue[2] > blue[0]
    assert red[0] > red[2]
    assert sorted(pairs.images) == sorted([sha(RED), sha(GREEN)])


def test_equal_pictures_become_one_with_the_matches_of_both(attune_home: Path, push: Push) -> None:
    rows = [
        TrainingExample(image=RED, images=[GREEN, GREEN], source="1"),
        TrainingExample(image=RED, images=[BLUE], source="2"),
        TrainingExample(image=RED, images=[GREEN], source="3"),
    ]

    report = push("colours", rows, batch_size=1)

    assert (report.images, report.merged, report.matches) == (1, 2, 2)
    assert sorted(load_pairs(report.fingerprint).captions[0]) == sorted([sha(GREEN), sha(BLUE)])


@pytest.mark.parametrize(
    ("given", "field", "reason", "said"),
    [
        ({"images": [b"no picture"]}, "images", "unreadable_match", "picture 1 of those that belong to it"),
        ({"images": [b""]}, "images", "missing_match", "it is not there"),
        ({"images": [RED]}, "images", "same_picture", "the very picture"),
        ({"uris": ["/somewhere/else.png"]}, "uris", "uri_refused", "ATTUNE_URI_ROOTS"),
        ({"images": [GREEN], "captions": ["a"]}, "images", "two_kinds", "the one or the other"),
        ({"images": [GREEN], "image": b"", "text": "q"}, "images", "two_kinds", "the one or the other"),
        ({"images": [GREEN], "image": b""}, "image", "missing_image", "there is no picture"),
        ({"images": [GREEN], "scores": [0.5]}, "scores", "two_kinds", "pictures that belong to it and scores"),
        ({"images": [GREEN], "negatives": ["a"], "margins": [1]}, "negatives", "two_kinds", "negatives and margins"),
    ],
)
def test_what_cannot_be_a_match_is_reported(given: dict[str, object], field: str, reason: str, said: str) -> None:
    good, problems = validate_examples([TrainingExample(**{"image": RED, "source": "here", **given})])

    assert good == []
    [problem] = problems
    assert (problem.source, problem.field, problem.reason) == ("here", field, reason)
    assert said in problem.advice


def test_an_example_is_kept_with_those_matches_that_are_good() -> None:
    [good], [problem] = validate_examples([TrainingExample(image=RED, images=[GREEN, b"", GREEN, BLUE])])

    assert good.images == [GREEN, BLUE]
    assert "picture 2 of those" in problem.advice


def test_matches_are_read_from_where_the_service_may_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTUNE_URI_ROOTS", str(tmp_path))
    for name, image in (("red", RED), ("green", GREEN)):
        (tmp_path / f"{name}.png").write_bytes(image)
    red, green = (str(tmp_path / f"{name}.png") for name in ("red", "green"))

    good, problems = validate_examples(
        [
            TrainingExample(uri=red, uris=[green]),
            TrainingExample(image=RED, uris=[green, str(tmp_path / "none.png")], images=[BLUE]),
            TrainingExample(uri=red, uris=[red]),
            TrainingExample(image=PINK, uri=red, uris=[red]),
        ]
    )

    assert [(one.image, one.images) for one in good] == [(RED, [GREEN]), (RED, [BLUE, GREEN]), (PINK, [RED])]
    assert [(problem.field, problem.reason) for problem in problems] == [
        ("uris", "unreadable_uri"),
        ("uris", "same_picture"),
    ]


def test_a_batch_with_addresses_of_matches_is_checked_again(attune_home: Path, tmp_path: Path) -> None:
    examples = [TrainingExample(image=RED, images=[GREEN], uris=["/not/allowed.png"])]
    first = uploads.add_batch("pairs", "upload", examples)

    assert first.reasons == {"uri_refused": 1}
    assert uploads.uploaded("pairs", "upload", first.batches).batches == []


def test_captions_and_matches_in_one_dataset_are_refused_with_how_many_of_each(attune_home: Path, push: Push) -> None:
    with pytest.raises(DataError, match=r"with captions \(1\) and with pictures in their place \(3\).*under two names"):
        push("mixed", [*drawings(3), TrainingExample(image=RED, captions=["red"])])
    with pytest.raises(DataError, match=r"with a picture \(3\) and with a text \(2\)"):
        push("mixed", [*drawings(3), *questions(2)])

    assert store.list_datasets() == []


def test_the_key_of_a_batch_tells_matches_apart_and_others_keep_theirs() -> None:
    def key(**fields: object) -> str:
        return batch_key([TrainingExample(image=b"i", source="1", **fields)])

    fields = [{"images": [b"a"]}, {"images": [b"a", b"b"]}, {"images": [b"ab"]}, {"uris": ["a"]}, {"uris": ["a", "b"]}, {}]
    assert len({key(**one) for one in fields}) == 6
    said = json.dumps([[], "", "", {}, "1"], sort_keys=True)  # as before there were matches
    assert key() == hashlib.sha256(hashlib.sha256(hashlib.sha256(b"i").digest() + said.encode()).digest()).hexdigest()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with four pictures, one of them in a folder of its own."""
    (tmp_path / "shop").mkdir()
    for name, image in (("red.png", RED), ("shop/green.png", GREEN), ("blue.png", BLUE), ("pink.png", PINK)):
        (tmp_path / name).write_bytes(image)
    return tmp_path


CSV_FORMS = {
    "match": "image,match\nred.png,shop/green.png\nblue.png,pink.png\nred.png,blue.png\n",
    "numbered": "n,image1,image2\n1,red.png,shop/green.png\n2,blue.png,pink.png\n3,red.png,blue.png\n",
    "other-order": "match_path,image_path\nshop/green.png,red.png\npink.png,blue.png\nblue.png,red.png\n",
    "tabs": "image\timage2\nred.png\tshop/green.png\nblue.png\tpink.png\nred.png\tblue.png\n",
    "no-header": "red.png,shop/green.png\nblue.png,pink.png\nred.png,blue.png\n",
}


@pytest.mark.parametrize("text", CSV_FORMS.values(), ids=CSV_FORMS)
def test_a_csv_of_two_columns_of_pictures_is_read_picture_by_picture(folder: Path, text: str) -> None:
    path = folder / "pairs.csv"
    path.write_text(text)

    examples = list(read_examples(path))

    assert [(one.image, one.images, one.captions, one.uris) for one in examples] == [
        (RED, [GREEN, BLUE], [], []),
        (BLUE, [PINK], [], []),
    ]
    assert count_examples(path) == 2


def test_what_a_csv_says_of_pictures_that_are_not_there_or_elsewhere(folder: Path) -> None:
    path = folder / "pairs.csv"
    path.write_text(
        "image,match,label,group,lens\nred.png,none.png,warm,g1,50\nred.png,https://x.org/1.png,,,\nblue.png,red.png,,,\n"
    )

    first, second = read_examples(path)

    assert (first.images, first.uris, first.label, first.group, first.tags) == (
        [b""],
        ["https://x.org/1.png"],
        "warm",
        "g1",
        {"lens": "50"},
    )
    assert first.source == f"pairs.csv, line 2 ({folder / 'none.png'}: no such file)"
    assert second.images == [RED]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_scores_and_negatives_beside_matches_are_read_so_that_they_are_reported(folder: Path, suffix: str) -> None:
    path = folder / f"pairs.{suffix}"
    if suffix == "csv":
        path.write_text("image,match,score,negative\nred.png,blue.png,0.5,\nblue.png,pink.png,,a green one\n")
    else:
        columns = {"match": ["blue.png", "pink.png"], "score": [0.5, None], "negative": [None, "a green one"]}
        pq.write_table(pa.table({"image": ["red.png", "blue.png"], **columns}), path)

    first, second = read_examples(path)

    assert (first.images, first.captions, first.scores) == ([BLUE], [], [0.5])
    assert (second.images, second.captions, second.negatives) == ([PINK], [], ["a green one"])
    assert validate_examples([first, second])[0] == []


def test_a_column_named_match_beside_captions_is_a_tag(folder: Path) -> None:
    path = folder / "captions.csv"
    path.write_text("image,caption,match\nred.png,a red one,yes\n")

    [example] = read_examples(path)

    assert (example.captions, example.images, example.tags) == (["a red one"], [], {"match": "yes"})


def test_a_column_named_match_beside_queries_and_documents_is_a_tag(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("query,document,match\nhow old?,ten,yes\n")

    [example] = read_examples(path)

    assert (example.text, example.captions, example.tags) == ("how old?", ["ten"], {"match": "yes"})


def test_captions_that_name_pictures_now_and_then_are_captions(folder: Path) -> None:
    path = folder / "captions.csv"
    path.write_text("red.png,blue.png\nblue.png,a blue one\n")

    assert [one.captions for one in read_examples(path)] == [["blue.png"], ["a blue one"]]


def test_parquet_of_pictures_and_lists_of_matches_is_read(folder: Path) -> None:
    columns = {
        "image": [{"bytes": RED, "path": "r"}, {"bytes": BLUE, "path": "b"}],
        "matches": [[{"bytes": GREEN, "path": "g"}, {"bytes": PINK, "path": "p"}], [{"bytes": RED, "path": "r"}]],
        "lens": ["50", "35"],
    }
    pq.write_table(pa.table(columns), folder / "pairs.parquet")
    pq.write_table(pa.table({"image": ["red.png"], "image2": ["blue.png"]}), folder / "paths.parquet")

    examples = list(read_examples(folder / "pairs.parquet"))
    [by_path] = read_examples(folder / "paths.parquet")

    assert [(one.image, one.images, one.tags) for one in examples] == [
        (RED, [GREEN, PINK], {"lens": "50"}),
        (BLUE, [RED], {"lens": "35"}),
    ]
    assert (by_path.image, by_path.images) == (RED, [BLUE])


def test_the_shards_of_a_dataset_of_matches_are_read_as_what_was_pushed(attune_home: Path, push: Push) -> None:
    examples = drawings(6, matches=2)
    examples[0].tags = {"lens": "50"}
    examples[1].images.append(examples[0].image)  # an item that is a match as well
    report = push("drawings", examples, batch_size=6)

    read = list(read_examples(store.content_folder(report.fingerprint)))

    assert [(one.image, one.images, one.label, one.tags) for one in read] == [
        (one.image, one.images, one.label, one.tags) for one in examples
    ]
    assert push("again", read).fingerprint == report.fingerprint


def test_pictures_of_an_example_that_are_too_large_together_are_left_out_and_named() -> None:
    half = bytes(MAX_IMAGE_BYTES // 2)

    [example] = read_examples([TrainingExample(image=half, images=[half, b"x"], source="here")])

    assert (len(example.image), [len(image) for image in example.images]) == (len(half), [len(half), 0])
    assert example.source == "here (its pictures have more than the 64 MiB that are accepted)"


def pairs_of(*captions: list[str]) -> Pairs:
    """Pairs of pictures with these keys: the first of each list is the item."""
    keys = [own[0] for own in captions]
    return Pairs("", keys, [own[1:] for own in captions], keys, kind=MATCH)


def test_what_is_or_looks_like_anothers_match_is_no_fair_negative_of_it() -> None:
    pairs = pairs_of(["a", "m", "n"], ["b", "m"], ["c", "a"], ["d", "o"], ["e", "p"], ["f", "q"])
    seeds = {key: seed for seed, key in enumerate("abcdefmnopq")}
    pixels = {key: photograph(seed) for key, seed in seeds.items()}
    pixels["p"] = as_jpeg(pixels["o"], 90, 60)  # looks like the match of d
    pixels["q"] = as_jpeg(pixels["d"], 90, 60)  # looks like d itself
    looks = [np.stack([pixels[key] for key in keys]) for keys in (pairs.images, pairs.texts)]
    (hashes, colours), of_matches = ((picture_hashes(some), mean_colours(some)) for some in looks)
    duplicates = Duplicates(pairs.captions, hashes, pairs.groups, colours, pairs.images, of_matches)
    rows = np.arange(len(pairs))
    sample = Captions(words_to_tokens, pairs).sample(rows, "all", np.random.default_rng(0))

    found = duplicates.ignored(rows, sample).int().tolist()

    assert sample.tokens.shape == (7, 0)
    #     m  n  m  a  o  p  q
    assert found == [
        [0, 0, 1, 1, 0, 0, 0],  # a: its own match, as b's; and itself, as c's
        [1, 0, 0, 0, 0, 0, 0],  # b
        [0, 0, 0, 0, 0, 0, 0],  # c
        [0, 0, 0, 0, 0, 1, 1],  # d: what looks like its match, and like itself
        [0, 0, 0, 0, 1, 0, 0],  # e: what its own match looks like
        [0, 0, 0, 0, 0, 0, 0],  # f
    ]


def test_held_out_pictures_leak_as_items_and_as_matches_and_where_they_look_alike() -> None:
    train, test = pairs_of(["a", "m"], ["b", "n"]), pairs_of(["m", "o"], ["c", "b"], ["d", "p"], ["e", "q"], ["f", "r"])
    pixels = {key: photograph(seed) for seed, key in enumerate("abcdefmnopqr")}
    pixels["d"] = as_jpeg(pixels["n"], 90, 60)
    pixels["q"] = as_jpeg(pixels["a"], 90, 60)
    of_both = (np.stack([pixels[key] for key in [*pairs.images, *pairs.texts]]) for pairs in (train, test))

    leaks = find_match_leaks(train, next(of_both), test, next(of_both))

    assert (leaks.exact, leaks.near, leaks.captions) == ([0], [(2, 1)], 2)
    assert leaks.describe() == (
        "Held-out pictures that are training pictures, or look nearly like one: 2 (1 the same file, 1 nearly alike). On "
        "these a model may be measured on what it learnt. Held-out matches that look like training pictures, or are: 2."
    )
