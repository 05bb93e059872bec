"""Build the emoji example: one concept, three artists, English captions.

Downloads the sources, renders every emoji of the base Unicode set that Twemoji,
OpenMoji and Noto all draw, and writes one Parquet file per style next to this
script, and one with their names in other languages. Row ``i`` is the same emoji in
each file. Needs ``npm`` and, unless the Noto
font is installed, ``apt-get`` and ``dpkg``; Python needs Pillow with libraqm,
pyarrow, resvg_py and typer.

    python examples/emoji/build.py
"""

import io
import json
import logging
import subprocess
import tarfile
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
import resvg_py
import typer
from captions import describe
from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).parent
NPM_PACKAGES = {"openmoji": "17.0.0", "@twemoji/svg": "15.0.0", "emojibase-data": "17.0.0"}
NOTO_PACKAGE = "fonts-noto-color-emoji=2.042-0+deb12u1"
NOTO_FONT = "usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
STYLES = ("twemoji", "openmoji", "noto")
LANGUAGES = ("de", "es", "fr", "hi", "ja", "ru", "zh")
"""Besides English, whose captions are with the pictures."""

SIDE_PX = 64
MARGIN_PX = 2
RENDER_PX = 288  # SVGs are drawn large and scaled down; Noto's bitmaps are 136x128
WEBP = {"lossless": False, "quality": 90, "method": 6, "use_sharp_yuv": True}

REFERENCE = "1F600"  # grinning face: sets the zoom of a style, see `fit`
NOTO_PPEM = 109  # the one size Noto's bitmaps come in

logger = logging.getLogger(__name__)


def fetch_npm(cache: Path, name: str, version: str) -> Path:
    """Return the folder of an npm package, unpacked under ``cache``."""
    folder = cache / f"{name.strip('@').replace('/', '-')}-{version}"
    if not folder.exists():
        subprocess.run(["npm", "pack", "--silent", f"{name}@{version}"], cwd=cache, check=True)
        with tarfile.open(folder.with_name(f"{folder.name}.tgz")) as archive:
            archive.extractall(folder, filter="data")
    return folder / "package"


def fetch_noto(cache: Path) -> Path:
    """Return the path of the Noto Color Emoji font: the installed one, or a download."""
    for root in (Path("/"), cache):
        if (root / NOTO_FONT).exists():
            return root / NOTO_FONT
    subprocess.run(["apt-get", "download", NOTO_PACKAGE], cwd=cache, check=True)
    (package,) = cache.glob("fonts-noto-color-emoji_*.deb")
    subprocess.run(["dpkg", "-x", str(package), str(cache)], check=True)
    return cache / NOTO_FONT


def svg_key(hexcode: str) -> str:
    """Return the form in which file names agree: no FE0F, no zeros in front.

    >>> svg_key("0031-FE0F-20E3")
    '31-20E3'
    """
    return hexcode.upper().replace("-FE0F", "").lstrip("0")


def index_svgs(folder: Path) -> dict[str, Path]:
    """Map ``svg_key`` to the SVG file for every SVG directly in ``folder``."""
    return {svg_key(path.stem): path for path in sorted(folder.glob("*.svg"))}


def draw_svg(path: Path) -> Image.Image:
    """Return the SVG as an RGBA picture ``RENDER_PX`` wide."""
    png = resvg_py.svg_to_bytes(svg_path=str(path), width=RENDER_PX, skip_system_fonts=True)
    return Image.open(io.BytesIO(png)).convert("RGBA")


def draw_noto(font: ImageFont.FreeTypeFont, hexcode: str) -> Image.Image | None:
    """Return the RGBA glyph, or None if the font lacks it or draws it in several parts."""
    text = "".join(chr(int(code, 16)) for code in hexcode.split("-"))
    if font.getlength(text) != font.getlength(chr(int(REFERENCE, 16))):
        return None  # every glyph is equally wide, so this is a sequence that fell apart
    picture = Image.new("RGBA", (160, 160))
    ImageDraw.Draw(picture).text((8, 8), text, font=font, embedded_color=True)
    return picture if picture.getbbox() else None  # a missing glyph is blank


def extent(picture: Image.Image) -> int:
    """Return the longer side, in pixels, of what is drawn in an RGBA picture."""
    left, top, right, bottom = picture.getchannel("A").getbbox() or (0, 0, 0, 0)
    return max(right - left, bottom - top)


def fit(picture: Image.Image, reference_extent: int) -> bytes:
    """Return a ``SIDE_PX`` square WebP with the drawing centred on white.

    The drawing fills the square up to the margin, but is never magnified more than the
    style's grinning face, so a small square stays smaller than a large one.

    Args:
        picture: RGBA rendering of one emoji.
        reference_extent: ``extent`` of the grinning face in the same style.
    """
    flat = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    flat = flat.crop(picture.getchannel("A").getbbox())
    scale = (SIDE_PX - 2 * MARGIN_PX) / max(*flat.size, reference_extent)
    width, height = (max(1, round(side * scale)) for side in flat.size)
    square = Image.new("RGB", (SIDE_PX, SIDE_PX), "white")
    corner = ((SIDE_PX - width) // 2, (SIDE_PX - height) // 2)
    square.paste(flat.resize((width, height), Image.Resampling.LANCZOS), corner)
    buffer = io.BytesIO()
    square.save(buffer, "WEBP", **WEBP)
    return buffer.getvalue()


def write(rows: list[dict[str, Any]], pictures: list[bytes], style: str, path: Path) -> None:
    """Write one style as Parquet that Hugging Face ``datasets`` reads as pictures."""
    text = ("group", "name", "hexcode", "category")
    string = {"dtype": "string", "_type": "Value"}
    features = {
        "image": {"_type": "Image"},
        "captions": {"feature": string, "_type": "Sequence"},
        **dict.fromkeys(text, string),
    }
    schema = pa.schema(
        [
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("captions", pa.list_(pa.string())),
            *((name, pa.string()) for name in text),
        ],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    records = [
        {"image": {"bytes": data, "path": f"{style}/{row['hexcode'].lower()}.webp"}, **row}
        for row, data in zip(rows, pictures, strict=True)
    ]
    table = pa.Table.from_pylist(records, schema=schema)
    pq.write_table(table, path, compression="zstd", compression_level=19)


def write_names(hexcodes: list[str], emojibase: Path, path: Path) -> None:
    """Write the lower-cased name of each emoji in other languages as Parquet, a column for each."""
    columns = {"hexcode": hexcodes}
    for language in LANGUAGES:
        entries = json.loads((emojibase / language / "data.json").read_text(encoding="utf-8"))
        known = {entry["hexcode"]: entry["label"].lower() for entry in entries}
        columns[language] = [known[hexcode] for hexcode in hexcodes]
    pq.write_table(pa.table(columns), path, compression="zstd", compression_level=19)


def main(
    out: Annotated[Path, typer.Option(help="Folder for the Parquet files.")] = HERE,
    cache: Annotated[Path, typer.Option(help="Folder for downloads.")] = Path(".cache/emoji"),
) -> None:
    """Build twemoji.parquet, openmoji.parquet, noto.parquet and names.parquet."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for folder in (out, cache):
        folder.mkdir(parents=True, exist_ok=True)
    openmoji, twemoji, emojibase = (fetch_npm(cache, *item) for item in NPM_PACKAGES.items())
    svgs = {"twemoji": index_svgs(twemoji), "openmoji": index_svgs(openmoji / "color/svg")}
    font = ImageFont.truetype(fetch_noto(cache), NOTO_PPEM, layout_engine=ImageFont.Layout.RAQM)

    def draw(style: str, hexcode: str) -> Image.Image | None:
        if style == "noto":
            return draw_noto(font, hexcode)
        path = svgs[style].get(svg_key(hexcode))
        return draw_svg(path) if path else None

    reference = {style: extent(face) for style in STYLES if (face := draw(style, REFERENCE))}
    pictures: dict[str, list[bytes]] = {style: [] for style in STYLES}
    kept, dropped = [], Counter[str]()
    for entry in json.loads((emojibase / "en/data.json").read_text(encoding="utf-8")):
        drawn = {style: draw(style, entry["hexcode"]) for style in STYLES}
        absent = [style for style, picture in drawn.items() if picture is None]
        if absent:
            dropped[", ".join(absent)] += 1
            continue
        kept.append(entry)
        for style, picture in drawn.items():
            if picture is not None:
                pictures[style].append(fit(picture, reference[style]))

    rows = describe(kept, emojibase)
    for style in STYLES:
        write(rows, pictures[style], style, out / f"{style}.parquet")
    write_names([row["hexcode"] for row in rows], emojibase, out / "names.parquet")
    logger.info("%d emoji in %d groups", len(rows), len({row["group"] for row in rows}))
    for styles, count in dropped.items():
        logger.info("%d emoji dropped: not drawn in %s", count, styles)


if __name__ == "__main__":
    typer.run(main)
