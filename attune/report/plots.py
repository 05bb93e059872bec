"""The plots of a report: drawn once, saved as PNG and put into the page as SVG that follows its light or dark colours."""

import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from attune.data.pairs import Pairs
from attune.evaluation.measure import Measurement, alike, image_of_text
from attune.figures import CHOSEN_BY
from attune.files import whole_file
from attune.report.material import Material
from attune.schemas import RunEvent

INK, LINE, BEFORE, AFTER = "#4a5260", "#d3d8de", "#b85c00", "#1f63b0"
THEME = {INK: "currentColor", LINE: "var(--line)", BEFORE: "var(--before)", AFTER: "var(--after)"}
"""Orange and blue, which the colour-blind tell apart as well. In SVG the page's own colours take their places."""

STYLE: dict[Any, Any] = {
    "axes.edgecolor": LINE,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 9,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": INK,
    "ytick.color": INK,
}
POINTS = 400
"""Of a curve: a run of any length is drawn with no more."""

Rows = tuple[np.ndarray, np.ndarray]
"""Of pairs: one of each, and the other."""

FURTHEST = 100
RANDOM_PAIRS = 20_000


@dataclass(frozen=True)
class Plot:
    """A drawn plot.

    Attributes:
        name: of its file, and short.
        title: for people.
        text: what it shows, for those who do not see it.
        figure: the drawing.
    """

    name: str
    title: str
    text: str
    figure: Figure

    def save(self, folder: Path) -> None:
        """Writes `NAME.png`, on white."""
        with whole_file(folder / f"{self.name}.png") as draft, matplotlib.rc_context(STYLE):
            self.figure.savefig(draft, format="png", dpi=160, facecolor="white")

    def svg(self) -> str:
        """An ``<svg>`` element for a page with the colours of `THEME`; its ids begin with the plot's name."""
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        with matplotlib.rc_context({**STYLE, "svg.hashsalt": self.name}):
            self.figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
        text = buffer.getvalue()
        text = text[text.index("<svg") :]
        text = re.sub(r' (xmlns(:xlink)?|width|height)="[^"]*"', "", text, count=4)
        text = re.sub("<[^>]*>", self._on_a_page, text)  # tags only: a class may be called `#1f63b0`
        return text.replace("<svg", f'<svg role="img" aria-label="{escape(self.text)}"', 1)

    def _on_a_page(self, tag: re.Match[str]) -> str:
        text = re.sub(r'(\bid="|"#|url\(#)', rf"\1{self.name}-", tag[0])
        for colour, own in THEME.items():
            text = text.replace(colour, own)
        return text


@dataclass(frozen=True)
class Side:
    """One of the models that are compared, or the only one.

    Attributes:
        name: `before` or `after`.
        label: for people.
        colour: of its lines and bars.
        line: style of its lines.
        found: its figures.
    """

    name: str
    label: str
    colour: str
    line: str
    found: Measurement


def draw(material: Material) -> list[Plot]:
    """All plots that there is something to draw for, in the order of the page."""
    sides = [Side("after", material.sides[1], AFTER, "-", material.after)]
    if material.before is not None:
        sides.insert(0, Side("before", material.sides[0], BEFORE, "--", material.before))
    with matplotlib.rc_context(STYLE):
        plots = [
            *training_curves(material.events),
            *(recall_curve(direction, sides) for direction in material.after.ranks),
            *([] if material.test.is_graded else similarities(material.test, sides)),
        ]
        zero_shot = material.facts.get("zero_shot") or {}
        names = [str(row["name"]) for row in zero_shot.get("classes", [])]
        if zero_shot.get("confusion"):
            plots.append(confusion(names, np.asarray(zero_shot["confusion"], dtype=np.float64)))
    return plots


def training_curves(events: list[RunEvent]) -> list[Plot]:
    """Loss and learning rate by step, validation recall and logit scale by epoch; none if nothing was trained."""
    steps = latest(events, "progress", "step")
    epochs, averages = latest(events, "validation", "epoch"), latest(events, "average", "epoch")
    plots = []
    for name, title, points, label in (
        ("loss", "Training loss", steps, "step"),
        ("learning_rate", "Learning rate", steps, "step"),
        ("mean_recall", "Validation recall", epochs, "epoch"),
        ("spearman", "Validation correlation", epochs, "epoch"),
        ("map@r", "Validation MAP@R", epochs, "epoch"),
        ("logit_scale", "Logit scale", epochs, "epoch"),
    ):
        x, y = curve(points, label, name)
        if not len(x) or not steps:
            continue
        figure, axes = _figure(left=0.15)
        _line(axes, x, y, AFTER, "-", "weights")
        if name in CHOSEN_BY and averages:
            _line(axes, *curve(averages, label, name), BEFORE, "--", "running average of the weights")
            axes.legend()
        axes.set_xlabel(label)
        axes.set_ylim(bottom=min(0.0, y.min()))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter("{x:g}")  # 0.0003 or 1e-05: as many digits as it takes, so that they have room
        first, last = (f"{y[end]:.3g} at {label} {x[end]:.0f}" for end in (0, -1))
        plots.append(Plot(name, f"{title} by {label}", f"{title}: {first}, {last}.", figure))
    return plots


def _line(axes: Axes, x: np.ndarray, y: np.ndarray, colour: str, style: str, label: str) -> None:
    # Among few points a dot shows where each is; one alone has no line.
    axes.plot(x, y, color=colour, linestyle=style, marker="o" if len(x) < 30 else "", markersize=3, label=label)
    axes.update_datalim([(x[-1], 1.05 * y.max())])  # room above
    axes.autoscale_view()


def latest(events: Iterable[RunEvent], kind: str, key: str) -> list[dict[str, float]]:
    """Values of the events of a kind; where training went back and did steps anew, only what it did last.

    Example:
        Steps 1, 2, 3, 2, 3 give the first event and the last two.
    """
    kept: list[dict[str, float]] = []
    for event in events:
        if event.kind == kind and key in event.values:
            while kept and kept[-1][key] >= event.values[key]:
                kept.pop()
            kept.append(event.values)
    return kept


def curve(points: Sequence[dict[str, float]], x: str, y: str) -> tuple[np.ndarray, np.ndarray]:
    """What is known of `y` over `x`, in at most `POINTS` points: of longer curves, means of neighbours."""
    known = np.array([(point[x], point[y]) for point in points if y in point]).reshape(-1, 2)
    parts = np.array_split(known, min(len(known), POINTS)) if len(known) else []
    thinned = np.array([part.mean(axis=0) for part in parts]).reshape(-1, 2)
    return thinned[:, 0], thinned[:, 1]


def recall_curve(direction: str, sides: list[Side]) -> Plot:
    """recall@k for every k up to 100, or as many answers as there are."""
    figure, axes = _figure()
    found = sides[0].found
    kind = found.kind
    of_items = len(found.images) - kind.is_single  # which are no answers to themselves
    answers = of_items if direction == kind.directions[0] else len(found.texts)
    ks = np.arange(1, min(FURTHEST, answers) + 1)
    said = []
    for side in sides:
        ranks = np.sort(side.found.ranks[direction])
        recall = np.searchsorted(ranks, ks, side="right") / len(ranks)
        axes.plot(ks, recall, side.line, color=side.colour, label=side.label, marker="o" if len(ks) == 1 else "")
        said.append(f"{side.label} from {recall[0]:.3f} at k = 1 to {recall[-1]:.3f} at k = {ks[-1]}")
    axes.set_xscale("log")
    marks = [k for k in (1, 2, 5, 10, 20, 50, 100) if k <= ks[-1]]
    axes.set_xticks(marks, [str(k) for k in marks])
    axes.minorticks_off()
    axes.set_ylim(0, 1.03)
    axes.set_xlabel("k")
    if len(sides) > 1:
        axes.legend(loc="best")  # curves may be high or low
    title = f"recall@k, {direction.replace('_', ' ')}"
    return Plot(f"recall_{direction}", title, f"{title}: {'; '.join(said)}.", figure)


def similarities(test: Pairs, sides: list[Side], seed: int = 0) -> list[Plot]:
    """Cosine similarities of captions and their own pictures, and of captions and pictures drawn at random, to one scale.

    Of single items, those of two with one label, and of two with different ones.
    """
    rng = np.random.default_rng(seed)
    pairs, drawn = _single_pairs(test, rng) if test.kind.is_single else _caption_pairs(test, rng)
    scores = []
    for found in (side.found for side in sides):
        queries = found.images if test.kind.is_single else found.texts
        # n: pairs, d: dimensions
        true, other = (np.einsum("nd,nd->n", queries[one], found.images[another]) for one, another in (pairs, drawn))
        scores.append((true[np.isfinite(true)], other[np.isfinite(other)]))
    everything = np.concatenate([part for pair in scores for part in pair])
    low, high = (everything.min(), everything.max()) if len(everything) else (-1.0, 1.0)
    bins = np.linspace(low - 0.01, high + 0.01, 61)
    plots = []
    for side, (true, other) in zip(sides, scores, strict=True):
        figure, axes = _figure()
        said = []
        for values, shade, name in ((other, INK, "random pairs"), (true, side.colour, "true pairs")):
            if len(values):
                weights = np.full(len(values), 1 / len(values))
                axes.hist(values, bins.tolist(), weights=weights, color=shade, alpha=0.55, histtype="stepfilled", label=name)
                said.append(f"{name} have a mean of {values.mean():.3f}")
        axes.set_xlim(bins[0], bins[-1])
        axes.set_yticks([])
        axes.xaxis.set_major_locator(MaxNLocator(5))  # numbers of a narrow range are long
        axes.spines.left.set_visible(False)
        axes.set_xlabel("cosine similarity")
        if said:
            axes.legend(loc="upper left")
        title = f"Similarity of true and random pairs, {side.label}"
        plots.append(Plot(f"similarity_{side.name}", title, f"{title}: {'; '.join(said)}.", figure))
    return plots


def _caption_pairs(test: Pairs, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Rows of captions and pictures: all that belong together, and some drawn at random that do not."""
    owner = image_of_text(test)
    text, image = rng.integers(len(owner), size=RANDOM_PAIRS), rng.integers(len(test), size=RANDOM_PAIRS)
    apart = owner[text] != image
    return (np.arange(len(owner)), owner), (text[apart], image[apart])


def _single_pairs(test: Pairs, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Rows of two items each: some of one label, and some of different ones, drawn at random."""
    found, labels = alike(test), np.asarray(test.labels)
    chosen = rng.permutation(len(found.query))[:RANDOM_PAIRS]
    one, other = rng.integers(len(test), size=(2, RANDOM_PAIRS))
    apart = labels[one] != labels[other]
    return (found.query[chosen], found.answer[chosen]), (one[apart], other[apart])


def confusion(names: list[str], counts: np.ndarray) -> Plot:
    """A heat map: for each class (row) the share of its pictures that were taken for each class (column)."""
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    # The font of a plot has not every letter: other names are numbers, in the order of the table.
    plain = all(name.isascii() and name.isprintable() and len(name) <= 16 for name in names) and len(names) <= 20
    labels = names if plain else [str(number) for number in range(1, len(names) + 1)]
    size = min(7.0, 160 / len(names))
    longest = max(map(len, labels))
    figure, axes = _figure(height=3.6, left=0.1 + 0.0125 * longest, bottom=0.1 + 0.0155 * longest)
    picture = axes.imshow(shares, cmap="cividis", vmin=0, vmax=1)
    axes.grid(False)
    axes.set_xticks(range(len(names)), labels, rotation=90, fontsize=size)
    axes.set_yticks(range(len(names)), labels, fontsize=size)
    axes.set_xlabel("taken for")
    axes.set_ylabel("is")
    figure.colorbar(picture, ax=axes, shrink=0.8)
    right = f"{np.trace(counts) / max(counts.sum(), 1):.1%} of all pictures are on the diagonal"
    return Plot(
        "confusion", "Confusion of classes", f"Share of each class's pictures by what they were taken for; {right}.", figure
    )


def _figure(height: float = 2.7, left: float = 0.13, bottom: float = 0.18) -> tuple[Figure, Axes]:
    # Fixed margins: a layout that is computed differs a little each time a figure is drawn, and takes half of the time.
    figure = Figure(figsize=(4.5, height))
    return figure, figure.subplots(gridspec_kw={"left": left, "right": 0.98, "top": 0.94, "bottom": bottom})
