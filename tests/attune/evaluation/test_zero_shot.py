from pathlib import Path

import numpy as np
import pytest

from attune.errors import DataError
from attune.evaluation.classification import classification_metrics
from attune.evaluation.zero_shot import classifier, templates, zero_shot
from attune.models.clip import Clip, load_clip


@pytest.fixture(scope="module")
def clip(tiny_model: Path) -> Clip:
    return load_clip(str(tiny_model))


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize(("name", "count"), [("simple", 1), ("openai", 7)])
def test_shipped_prompts_have_a_place_for_the_class(name: str, count: int) -> None:
    found = templates(name)

    assert len(found) == len(set(found)) == count
    assert all("owl" in prompt.format(c="owl") for prompt in found)


def test_prompts_are_read_from_a_file_without_comments_and_empty_lines(tmp_path: Path) -> None:
    path = tmp_path / "birds.txt"
    path.write_text("# birds\n\na photo of a {c}, a kind of bird.\n  {c} {{in a tree}}  \n")

    assert templates(str(path)) == ["a photo of a {c}, a kind of bird.", "{c} {{in a tree}}"]


@pytest.mark.parametrize("prompt", ["a photo.", "a {d} of {c}", "a {}", "a {0} {c}", "{c!r}", "{c:>9}", "{c", "{c.x}"])
def test_a_prompt_with_anything_but_c_is_refused_by_file_and_line(prompt: str, tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text(f"a photo of a {{c}}.\n# what follows is wrong\n{prompt}\n")

    with pytest.raises(DataError, match=r"prompts\.txt: lines that are no prompts: 1, the first is line 3\."):
        templates(str(path))


def test_a_file_without_prompts_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("# nothing yet\n")

    with pytest.raises(DataError, match="there are no prompts in it"):
        templates(str(path))


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(DataError, match="templates = 'imagenet': .* Give openai, simple, or a text file"):
        templates("imagenet")


def test_a_class_is_the_unit_mean_of_its_prompts_unit_embeddings(clip: Clip) -> None:
    prompts = ["a photo of a {c}.", "art of the {c}.", "{c}"]

    found = classifier(clip, ["owl", "fire_truck"], prompts)

    slow = []
    for name in ("owl", "fire truck"):
        each = [clip.encode_texts([prompt.replace("{c}", name)])[0].astype(np.float64) for prompt in prompts]
        slow.append(unit(sum(vector / np.linalg.norm(vector) for vector in each) / 3))
    assert found.dtype == np.float32
    assert found == pytest.approx(np.array(slow), abs=1e-6)


@pytest.mark.parametrize(
    ("names", "message"), [(["fire_truck", "owl", "fire truck"], "Two classes are called 'fire truck'"), ([], "no classes")]
)
def test_classes_that_no_model_can_tell_apart_are_refused(clip: Clip, names: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        classifier(clip, names, ["{c}"])


def test_scores_are_cosines() -> None:
    classes = np.array([[1, 0], [0.6, 0.8]], dtype=np.float32)
    images = np.array([[0, 1], [0.8, 0.6], [1, 0]], dtype=np.float32)

    # picture 1 and class 1: 0.8 * 0.6 + 0.6 * 0.8 = 0.96
    assert zero_shot(classes, images) == pytest.approx(np.array([[0, 0.8], [0.8, 0.96], [1, 0.6]]), abs=1e-6)
    assert zero_shot(classes, images).dtype == np.float32


@pytest.mark.parametrize("dim", [32, 33, 512, 768])
def test_classes_with_equal_vectors_tie_so_nothing_is_recognised(dim: int) -> None:
    rng = np.random.default_rng(dim)
    images = unit(rng.standard_normal((50, dim)))
    classes = np.tile(unit(rng.standard_normal(dim)), (37, 1))

    scores = zero_shot(classes, images)

    assert (scores == scores[:, :1]).all()  # a product in float32 is rounded differently from column to column
    found = classification_metrics(scores, rng.integers(0, 37, 50))
    assert found == {"acc1": 0, "acc5": 0, "mean_per_class_recall": 0}


def test_an_error_does_not_show_what_is_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "secret.txt"
    path.write_text("password: 1234\n")

    with pytest.raises(DataError, match="lines that are no prompts: 1, the first is line 1") as caught:
        templates(str(path))
    assert "1234" not in str(caught.value)
    with pytest.raises(DataError, match="there is no such file"):
        templates("/dev/zero")


def test_a_byte_order_mark_is_no_part_of_the_first_prompt(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("a photo of a {c}.\n{c}\n", encoding="utf-8-sig")

    assert templates(str(path)) == ["a photo of a {c}.", "{c}"]


def test_a_file_that_is_not_there_is_looked_for_on_the_services_machine() -> None:
    with pytest.raises(DataError, match=r"'prompts\.txt': .* or a text file on the service's machine with a prompt a line"):
        templates("prompts.txt")
