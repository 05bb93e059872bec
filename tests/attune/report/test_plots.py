"""Plots: the numbers that are drawn, and the SVG that goes into a page."""

import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

from attune.data.pairs import Pairs
from attune.evaluation.measure import Measurement, image_of_text
from attune.metrics import DIRECTIONS
from attune.report.material import Material
from attune.report.plots import AFTER, POINTS, THEME, Plot, Side, confusion, curve, draw, latest, recall_curve, similarities
from attune.report.plots import training_curves as curves
from attune.schemas import RunEvent


def progress(steps: list[int], kind: str = "progress", key: str = "step") -> list[RunEvent]:
    return [RunEvent(kind=kind, values={key: float(step), "loss": 10.0 * place}) for place, step in enumerate(steps)]


def side(ranks: list[int], images: np.ndarray | None = None) -> Side:
    pictures = np.eye(4, dtype=np.float32) if images is None else images
    return Side(
        "after", "after", AFTER, "-", Measurement({}, dict.fromkeys(DIRECTIONS, np.array(ranks)), pictures, pictures)
    )


def pairs(pictures: int) -> Pairs:
    """So many pictures, with a caption each."""
    keys = [str(number) for number in range(pictures)]
    return Pairs("", keys, [[key] for key in keys], keys)


def test_where_training_went_back_only_the_last_steps_are_drawn() -> None:
    found = latest(progress([1, 2, 3, 2, 3, 4]), "progress", "step")

    assert [(point["step"], point["loss"]) for point in found] == [(1, 0), (2, 30), (3, 40), (4, 50)]


def test_a_long_run_is_drawn_with_few_points_that_are_means_of_neighbours() -> None:
    points = [{"step": float(step), "loss": float(step)} for step in range(100_000)]

    x, y = curve(points, "step", "loss")

    assert len(x) == POINTS
    # 250 steps each: the first point is the mean of 0 ... 249.
    assert (x[0], y[0], y[-1]) == (124.5, 124.5, 99_874.5)


def test_points_without_the_value_are_left_out_of_a_curve() -> None:
    x, y = curve([{"epoch": 0.0}, {"epoch": 1.0, "loss": 2.0}], "epoch", "loss")

    assert (x.tolist(), y.tolist()) == ([1.0], [2.0])
    assert [len(part) for part in curve([], "epoch", "loss")] == [0, 0]


def test_training_curves_are_there_for_what_was_recorded_and_not_without_training() -> None:
    validations = [
        RunEvent(kind="validation", values={"epoch": e, "mean_recall": 0.5, "logit_scale": 14.0}) for e in (0.0, 1.0)
    ]
    averages = [RunEvent(kind="average", values={"epoch": 1.0, "mean_recall": 0.6})]

    assert curves([]) == []
    assert curves(validations) == []
    plots = curves([*progress([1]), *validations, *averages])
    assert [plot.name for plot in plots] == ["loss", "mean_recall", "logit_scale"]
    assert plots[1].text == "Validation recall: 0.5 at epoch 0, 0.5 at epoch 1."
    lines = plots[1].figure.axes[0].get_lines()
    assert [line.get_ydata().tolist() for line in lines] == [[0.5, 0.5], [0.6]]


def test_recall_is_drawn_for_every_k_up_to_the_number_of_answers() -> None:
    plot = recall_curve("text_to_image", [side([1, 1, 3, 4])])

    line = plot.figure.axes[0].get_lines()[0]
    assert line.get_xdata().tolist() == [1, 2, 3, 4]
    assert line.get_ydata().tolist() == [0.5, 0.5, 0.75, 1.0]
    assert plot.text.endswith("after from 0.500 at k = 1 to 1.000 at k = 4.")


def test_similarities_are_of_true_pairs_and_of_pairs_that_do_not_belong_together() -> None:
    # The rows of the unit matrix: a pair scores 1 if it belongs together, and 0 if not.
    (plot,) = similarities(pairs(4), [side([1, 1, 1, 1])])

    assert "random pairs have a mean of 0.000; true pairs have a mean of 1.000." in plot.text


def test_a_single_picture_has_no_random_pairs_and_what_is_no_number_is_left_out() -> None:
    (alone,) = similarities(pairs(1), [side([1], np.eye(1, dtype=np.float32))])
    (nothing,) = similarities(pairs(1), [side([1], np.full((1, 1), np.nan, dtype=np.float32))])

    assert alone.text.endswith("after: true pairs have a mean of 1.000.")
    assert len(nothing.figure.axes[0].patches) == 0


def test_the_confusion_of_classes_is_by_share_of_each_row_and_numbers_stand_for_names_no_font_has() -> None:
    counts = np.array([[3.0, 1.0], [0.0, 0.0]])

    plain, other = confusion(["cat", "$x^2"], counts), confusion(["cat", "🙂"], counts)

    assert np.asarray(plain.figure.axes[0].images[0].get_array()).tolist() == [[0.75, 0.25], [0, 0]]
    assert [[text.get_text() for text in plot.figure.axes[0].get_xticklabels()] for plot in (plain, other)] == [
        ["cat", "$x^2"],
        ["1", "2"],
    ]
    assert plain.text.endswith("75.0% of all pictures are on the diagonal.")
    assert "$x^2" in plain.svg()


def test_names_of_classes_are_shown_as_they_are_however_much_they_look_like_svg() -> None:
    names = [AFTER, 'id="a" "#b', "url(#c) <&>"]

    svg = confusion(names, np.eye(3)).svg()

    shown = ["".join(element.itertext()) for element in ET.fromstring(svg.replace("xlink:", "")).iter("text")]
    assert [shown.count(name) for name in names] == [2, 2, 2]


def boxes(texts: Iterable[Text]) -> list[Bbox]:
    """Where texts stand, from left to right, in pixels."""
    found = [text.get_window_extent() for text in texts if text.get_text()]
    return sorted(found, key=lambda box: box.x0)


@pytest.mark.parametrize("alike", [0.0, 1e-6, 0.003, 0.03, 0.3, 1.0])
def test_numbers_below_similarities_do_not_overlap_however_much_alike_embeddings_are(alike: float) -> None:
    turned = np.linspace(0, alike, 4)
    images = np.stack([np.cos(turned), np.sin(turned)], axis=1).astype(np.float32)

    [plot] = similarities(pairs(4), [side([1, 1, 1, 1], images)])

    plot.figure.draw_without_rendering()
    ticks = boxes(plot.figure.axes[0].get_xticklabels())
    assert len(ticks) > 2
    assert all(one.x1 + 2 < other.x0 for one, other in pairwise(ticks))


@pytest.mark.parametrize("worst", [1, 10, 200, 500, 1000])
def test_the_legend_of_recall_is_where_no_curve_is(worst: int) -> None:
    pictures = np.zeros((1000, 2), dtype=np.float32)
    evenly = [list(range(1, last + 1)) for last in (worst, max(1, worst * 3 // 4))]
    sides = [replace(side(ranks, pictures), label=label) for ranks, label in zip(evenly, ("before", "after"), strict=True)]

    axes = recall_curve("text_to_image", sides).figure.axes[0]

    axes.figure.draw_without_rendering()
    legend = axes.get_legend()
    assert legend is not None
    box = legend.get_window_extent()
    for line in axes.get_lines():
        points = axes.transData.transform(line.get_xydata())
        assert not box.count_contains(points)


@pytest.fixture(scope="module")
def plots(material: Material) -> list[Plot]:
    return draw(material)


def test_a_run_has_these_plots(plots: list[Plot], evaluated_only: Material) -> None:
    curves = ["recall_text_to_image", "recall_image_to_text"]

    names = [plot.name for plot in plots]
    assert names == ["loss", "learning_rate", "mean_recall", "logit_scale", *curves, "similarity_before", "similarity_after"]
    assert [plot.name for plot in draw(evaluated_only)] == [*curves, "similarity_after"]


def test_svg_is_one_element_in_the_colours_of_the_page_with_ids_of_its_own(plots: list[Plot]) -> None:
    ids: list[str] = []
    for plot in plots:
        svg = plot.svg()
        assert svg == plot.svg()  # the same every time
        assert "http" not in svg
        assert not any(colour in svg for colour in THEME)
        root = ET.fromstring(svg.replace("xlink:", ""))
        assert (root.tag, root.get("role"), root.get("aria-label")) == ("svg", "img", plot.text)
        own = [element.get("id", "") for element in root.iter() if element.get("id")]
        used = [element.get("href", "")[1:] for element in root.iter() if element.get("href")]
        assert used
        assert set(used) <= set(own)
        ids += own
    assert len(ids) == len(set(ids))


def test_png_is_on_white_and_in_the_colours_themselves(plots: list[Plot], tmp_path: Path) -> None:
    plots[0].save(tmp_path)

    image = Image.open(tmp_path / "loss.png").convert("RGB")
    colours = {to_hex(np.array(colour) / 255) for _, colour in image.getcolors(100_000) or []}
    assert {"#ffffff", AFTER} <= colours


def test_the_histograms_of_a_run_tell_what_it_learnt(material: Material) -> None:
    owner = image_of_text(material.test)
    true = np.einsum("nd,nd->n", material.after.texts, material.after.images[owner]).mean()

    text = next(plot.text for plot in draw(material) if plot.name == "similarity_after")

    assert f"true pairs have a mean of {true:.3f}" in text
