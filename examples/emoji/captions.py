"""Say what an emoji shows: English captions, and the concept it shares with its variants."""

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

SKIN_TONES = {f"{code:X}" for code in range(0x1F3FB, 0x1F400)}
GENDER_SIGNS = {"2640", "2642"}
ADULT, CHILD, ZWJ = "1F9D1", "1F9D2", "200D"
PERSON = {"1F468": ADULT, "1F469": ADULT, "1F466": CHILD, "1F467": CHILD}
# Gender variants that have a code point of their own instead of a joined sign.
SAME_CONCEPT = {
    "1F475": "1F9D3", "1F474": "1F9D3",  # older person
    "1F934": "1FAC5", "1F478": "1FAC5",  # person with crown
    "1FAC3": "1FAC4", "1F930": "1FAC4",  # pregnant person
    "1F57A": "1F483",  # man, woman dancing
    "1F936": "1F385", "1F9D1-200D-1F384": "1F385",  # Claus
    "1F46B": "1F9D1-200D-1F91D-200D-1F9D1", "1F46C": "1F9D1-200D-1F91D-200D-1F9D1",
    "1F46D": "1F9D1-200D-1F91D-200D-1F9D1",  # holding hands
    "1F491": "1F9D1-200D-2764-200D-1F9D1",  # couple with heart
    "1F48F": "1F9D1-200D-2764-200D-1F48B-200D-1F9D1",  # kiss
    "1F46A": "1F9D1-200D-1F9D1-200D-1F9D2",  # family
    # Territories that fly the flag of another: no picture can tell them apart.
    "1F1ED-1F1F2": "1F1E6-1F1FA",  # Heard & McDonald Islands: Australia
    "1F1E8-1F1F5": "1F1EB-1F1F7", "1F1F2-1F1EB": "1F1EB-1F1F7",  # Clipperton, St. Martin: France
    "1F1E9-1F1EC": "1F1EE-1F1F4",  # Diego Garcia: British Indian Ocean Territory
    "1F1EA-1F1E6": "1F1EA-1F1F8",  # Ceuta & Melilla: Spain
    "1F1E7-1F1FB": "1F1F3-1F1F4", "1F1F8-1F1EF": "1F1F3-1F1F4",  # Bouvet, Svalbard: Norway
    "1F1FA-1F1F2": "1F1FA-1F1F8",  # U.S. Outlying Islands: United States
}  # fmt: skip

SHORTCODES = ("emojibase", "github", "iamcal", "joypixels", "cldr")
MAX_SHORTCODE_CAPTIONS = 2
# "+1", "ax", "flag ax" and "family mmgb" are codes, not words; the last is left out for taste.
CODE_PHRASE = re.compile(r"(flag )?.{1,2}|(family|couple|couplekiss) [mwgb]{2,4}|shit")
COUNTRY_CODE = re.compile(r"[A-Z]{2}")


def concept(hexcode: str) -> str:
    """Return the hexcode of the concept, without skin tone and gender.

    >>> concept("1F469-1F3FD-200D-1F680")  # woman astronaut: medium skin tone
    '1F9D1-200D-1F680'
    >>> concept("1F6B4-200D-2642-FE0F")  # man biking
    '1F6B4'
    """
    codes = [code for code in hexcode.split("-") if code != "FE0F"]
    if len(codes) > 1:  # alone, a sign or a tone is an emoji of its own
        joined = "-".join(code for code in codes if code not in SKIN_TONES)
        parts = [part for part in joined.split(f"-{ZWJ}-") if part not in GENDER_SIGNS]
        codes = f"-{ZWJ}-".join(parts).split("-")
    neutral = "-".join(PERSON.get(code, code) for code in codes)
    return SAME_CONCEPT.get(neutral, neutral)


def words(caption: str) -> tuple[str, ...]:
    """Return the sorted words of a caption: captions with the same words are duplicates."""
    return tuple(sorted(re.findall(r"\w+", caption.replace("'", "").replace("’", ""))))


def captions_for(entry: dict[str, Any], shortcodes: list[dict[str, Any]]) -> list[str]:
    """Return lower-cased captions: the name, the tags in one string, shortcode phrases."""
    name = entry["label"].lower()
    captions, seen = [name], {words(name)}
    kept = [tag for tag in entry.get("tags", []) if not COUNTRY_CODE.fullmatch(tag)]
    tags = ", ".join(tag.lower() for tag in kept)
    if tags and words(tags) not in seen and not CODE_PHRASE.fullmatch(tags):
        captions.append(tags)
        seen.add(words(tags))
    limit = len(captions) + MAX_SHORTCODE_CAPTIONS
    for source in shortcodes:
        codes = source.get(entry["hexcode"], [])
        for code in [codes] if isinstance(codes, str) else codes:
            phrase = re.sub(r"[_-]", " ", code).strip().lower()
            if len(captions) == limit or words(phrase) in seen or CODE_PHRASE.fullmatch(phrase):
                continue
            captions.append(phrase)
            seen.add(words(phrase))
    return captions


def drop_ambiguous(rows: list[dict[str, Any]]) -> None:
    """Remove captions, other than a row's name, that also describe another group."""
    groups: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for row in rows:
        for caption in row["captions"]:
            groups[words(caption)].add(row["group"])
    for row in rows:
        first, *others = row["captions"]
        row["captions"] = [first, *(c for c in others if len(groups[words(c)]) == 1)]


def describe(entries: list[dict[str, Any]], emojibase: Path) -> list[dict[str, Any]]:
    """Return the text columns of each emoji, in the order of ``entries``."""
    shortcodes = [json.loads((emojibase / f"en/shortcodes/{name}.json").read_text(encoding="utf-8")) for name in SHORTCODES]
    categories = json.loads((emojibase / "meta/groups.json").read_text(encoding="utf-8"))["groups"]
    rows = [
        {
            "captions": captions_for(entry, shortcodes),
            "group": concept(entry["hexcode"]),
            "name": entry["label"],
            "hexcode": entry["hexcode"],
            # Regional indicators carry no category; the tones and hair are "component" too.
            "category": categories[str(entry.get("group", 2))],
        }
        for entry in entries
    ]
    drop_ambiguous(rows)
    return rows
