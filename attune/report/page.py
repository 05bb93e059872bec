"""The report of an evaluation: a folder with one page that opens anywhere, and what it is made of.

index.html     the page: no script, nothing fetched, pictures and plots inside it
plots/         the plots as PNG
examples.json  random queries, and those that gained and lost most, with their first hits before and after
examples.png   the random ones as pictures, if there are any
README.md      the model card
"""

import json
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from attune.characters import shortened
from attune.evaluation.comparison import FEWEST, Row, Section, comparison
from attune.files import whole_file, write_text
from attune.kinds import ALL_DIRECTIONS, IMAGE
from attune.metrics import OF_AT_R
from attune.report.card import chosen_weights, model_card
from attune.report.facts import FORMATS, data_facts, fingerprints, measured_on, reproduce, setting_rows
from attune.report.gallery import SHOWN, contact_sheet, key_of, pick_changed, pick_examples, thumbnail
from attune.report.material import Material
from attune.report.plots import Plot, draw
from attune.report.verdict import verdict

FEWER = 3
"""Examples of each kind in the other direction, from image to text, which take more room."""

HERE = Path(__file__).parent
# Everything is escaped that is not made here: captions, names and class names come from users.
TEMPLATES = Environment(
    loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
TEMPLATES.filters |= FORMATS | {"short": shortened}


def write_report(folder: Path, material: Material) -> None:
    """Writes the report's files, each as a whole: one that is read meanwhile is the old one or the new one.

    Args:
        folder: `report` of a run folder; made if it is not there.
        material: what the report is made of.
    """
    plots = draw(material)
    for plot in plots:
        plot.save(folder / "plots")
    seed = int(material.run.settings.get("seed", 0))
    examples = pick_examples(material.test, material.before, material.after, seed)
    write_text(folder / "examples.json", json.dumps(examples, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    if material.cache is not None and examples:
        with whole_file(folder / "examples.png") as draft:
            contact_sheet(_of_kind("random", examples), material.test, material.cache).save(draft, format="PNG")
    write_text(folder / "README.md", model_card(material.run, material.model))
    write_text(folder / "index.html", render(material, plots, examples))


def render(material: Material, plots: list[Plot], examples: list[dict[str, Any]]) -> str:
    """The page as HTML.

    Args:
        material: what it is made of.
        plots: from `attune.report.plots.draw`.
        examples: from `attune.report.gallery.pick_examples`.
    """
    run, facts = material.run, material.facts
    headline, sentences = verdict(run.evaluation, bool(run.training.device))
    sections = [Section.model_validate(section) for section in facts.get("sections", [])]
    first = next((section for section in sections if section.name == "headline"), comparison(run.evaluation))
    pixels, kind = material.cache, material.test.kind
    answers = zip(kind.directions, (kind.tower, kind.caption_tower), strict=not kind.is_single)

    @cache
    def small(key: str) -> str:
        return thumbnail(pixels.pixels[pixels.rows([key])[0]]) if pixels is not None else ""

    def picture(one: dict[str, Any]) -> str:
        return small(key_of(one, material.test))

    page = TEMPLATES.get_template("page.html").render(
        run=run,
        style=Markup((HERE / "style.css").read_text(encoding="utf-8")),
        fewest=FEWEST,
        too_few=run.evaluation.items < FEWEST,
        kind=kind,
        graded=material.test.is_graded,
        only_probed=kind is not IMAGE and any(material.test.labels),
        sides=dict(zip(("before", "after"), material.sides, strict=True)),
        headline=headline,
        sentences=sentences,
        warnings=list(dict.fromkeys([*facts.get("warnings", []), *run.evaluation.warnings])),
        leakage=facts.get("leakage", "") if facts.get("leakage") not in run.evaluation.warnings else "",
        first=first,
        further=[section for section in sections if section.name != "headline" and section.rows],
        by_direction=by_direction,
        plots={plot.name: (plot, Markup(plot.svg())) for plot in plots},  # matplotlib escapes texts in SVG
        of_at_r=OF_AT_R.strip(),
        curves=[plot.name for plot in plots if plot.name.startswith(("recall_", "similarity_"))],
        chosen=chosen_weights(run) if run.training.chosen else "",
        examples=galleries(material, examples),
        picture=picture,
        pictured=[direction for direction, tower in answers if tower == "image" and pixels is not None],
        shown=pixels is not None,
        read="given embeddings" if kind.of_embeddings else "tokens" if kind.of_texts else "pixels",
        slices=[{**part, "row": Row.model_validate({"metric": "slice", **part})} for part in facts.get("slices", [])],
        slices_of=facts.get("slices_of", ""),
        wins={direction: facts["wins"][direction] for direction in kind.directions if direction in facts.get("wins", {})},
        zero_shot=facts.get("zero_shot") or {},
        data=data_facts(material),
        fingerprints=fingerprints(material),
        settings=setting_rows(run),
        command=reproduce(run),
        measured_on=measured_on(run),
        environment=facts.get("environment", {}),
    )
    return page.lstrip()  # the macros at the top of the template leave empty lines


def by_direction(rows: list[Row]) -> list[tuple[str, list[tuple[str, Row]]]]:
    """Rows under the direction, or `zero_shot`, that their name begins with; under an empty heading those that have none."""

    def heading(row: Row) -> str:
        return next((name for name in (*ALL_DIRECTIONS, "zero_shot") if row.metric.startswith(f"{name}_")), "")

    return [
        (name.replace("_", " "), [(row.metric.removeprefix(f"{name}_").replace("_", " "), row) for row in group])
        for name, group in groupby(rows, heading)
    ]


def galleries(material: Material, examples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Example queries by kind: what got better, what got worse, and a few at random."""
    if material.test.is_graded:
        return []
    asked = material.test.kind.asked
    others = [direction for direction in material.test.kind.directions if direction != asked]
    found = [{"kind": "Drawn at random", "direction": asked, "examples": _of_kind("random", examples)[:SHOWN]}]
    if material.before is None:
        return found
    as_asked = [
        {"kind": kind.capitalize(), "direction": asked, "examples": _of_kind(kind, examples)} for kind in ("better", "worse")
    ]
    backwards = [
        {"kind": kind.capitalize(), "direction": other, "examples": shown[:FEWER]}
        for other in others
        for kind, shown in pick_changed(other, material.test, material.before, material.after).items()
    ]
    return [*as_asked, *found, *backwards]


def _of_kind(kind: str, examples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [example for example in examples if example["kind"] == kind]
