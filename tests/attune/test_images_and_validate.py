import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from attune.data.images import MAX_PIXELS, decode
from attune.data.uploads import problems_by_reason
from attune.data.validate import LONGEST, validate_examples
from attune.schemas import TrainingExample
from tests.conftest import picture

JPEG = picture("red", size=(200, 160), kind="JPEG")


def png_header(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is this large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_decodes_every_common_format_to_rgb(kind: str) -> None:
    image = decode(picture("red", "square", size=(40, 36), kind=kind))

    assert (image.mode, image.size) == ("RGB", (40, 36))
    assert np.abs(np.asarray(image)[18, 18].astype(int) - (255, 0, 0)).max() < 12  # JPEG and WebP round colours


def test_turns_a_picture_as_its_exif_orientation_says() -> None:
    image = Image.new("RGB", (64, 32), "blue")
    image.paste("red", (0, 0, 32, 32))  # the left half
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held so that the stored picture must be turned a quarter clockwise

    turned = decode(encoded(image, "JPEG", exif=exif, quality=95))

    assert turned.size == (32, 64)
    top, bottom = turned.getpixel((16, 8)), turned.getpixel((16, 56))
    assert top[0] > 200 > 60 > top[2]  # a quarter clockwise takes the left half to the top
    assert bottom[2] > 200 > 60 > bottom[0]


@pytest.mark.parametrize("kind", ["RGBA", "LA", "P"])
def test_lays_transparency_on_white(kind: str) -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.putpixel((0, 0), (0, 0, 0, 255))
    if kind == "P":
        # Palette colour 0 is black and transparent, 1 is black and not.
        paletted = Image.new("P", (8, 8), 0)
        paletted.putpalette([0, 0, 0, 0, 0, 0])
        paletted.putpixel((0, 0), 1)
        data = encoded(paletted, "PNG", transparency=0)
    else:
        data = encoded(image.convert(kind), "PNG")

    decoded = decode(data)

    assert decoded.mode == "RGB"
    assert decoded.getpixel((0, 0)) == (0, 0, 0)
    assert decoded.getpixel((4, 4)) == (255, 255, 255)


def test_lays_half_transparency_half_on_white() -> None:
    decoded = decode(encoded(Image.new("RGBA", (2, 2), (255, 0, 0, 51)), "PNG"))

    # 51 of 255 is a fifth: green and blue are 0.2 * 0 + 0.8 * 255 = 204
    assert decoded.getpixel((0, 0)) == (255, 204, 204)


def test_takes_the_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]

    assert decode(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no picture at all",
        JPEG[: len(JPEG) // 2],
        JPEG[:20],
        picture("red")[:60],
        JPEG[:2] + b"\x00" * 400,
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        png_header(8, 8),
    ],
    ids=["empty", "text", "cut-jpeg", "jpeg-start", "cut-png", "corrupt-jpeg", "svg", "png-without-pixels"],
)
def test_refuses_what_is_no_whole_picture(data: bytes) -> None:
    with pytest.raises(ValueError, match="cannot be decoded"):
        decode(data)


@pytest.mark.filterwarnings("ignore:Image size:PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("width", "height"), [(10_001, 10_000), (100_000, 100_000), (1, MAX_PIXELS + 1)])
def test_refuses_a_huge_picture_before_it_is_unpacked(width: int, height: int) -> None:
    with pytest.raises(ValueError, match=r"pixels|cannot be decoded"):
        decode(png_header(width, height))


@pytest.mark.filterwarnings("ignore:Image size:PIL.Image.DecompressionBombWarning")
def test_says_how_large_a_refused_picture_is() -> None:
    with pytest.raises(ValueError, match=r"it has 10001 x 10000 pixels; at most 100,000,000 are accepted"):
        decode(png_header(10_001, 10_000))


def test_sorts_good_examples_from_bad_ones_and_names_every_problem() -> None:
    examples = [
        TrainingExample(image=JPEG, captions=["fine"], source="a"),
        TrainingExample(image=JPEG[:100], captions=["its picture is cut short"], source="b"),
        TrainingExample(image=b"", captions=["it has no picture"], source="c"),
        TrainingExample(image=JPEG, captions=[], source="d"),
        TrainingExample(image=JPEG, captions=["", "  ", "nan", "NaN"], source="e"),
        TrainingExample(image=b"", captions=[" "], source="f"),
    ]

    good, problems = validate_examples(examples)

    assert [example.source for example in good] == ["a"]
    assert [(problem.source, problem.field, problem.reason) for problem in problems] == [
        ("b", "image", "unreadable_image"),
        ("c", "image", "missing_image"),
        ("d", "captions", "missing_caption"),
        *[("e", "captions", "empty_caption")] * 4,
        ("f", "image", "missing_image"),
        ("f", "captions", "empty_caption"),
    ]
    assert [problem.value for problem in problems[3:7]] == ["''", "'  '", "'nan'", "'NaN'"]
    assert all(problem.advice for problem in problems)
    assert problems_by_reason(problems) == {
        "unreadable_image": 1,
        "missing_image": 2,
        "missing_caption": 1,
        "empty_caption": 5,
    }


def test_keeps_the_good_captions_of_an_example_with_a_bad_one() -> None:
    good, problems = validate_examples([TrainingExample(image=JPEG, captions=[" red ", "", "red", "round"], source="a")])

    assert [example.captions for example in good] == [["red", "round"]]  # stripped, and the second "red" counts once
    assert [problem.reason for problem in problems] == ["empty_caption"]


def test_labels_and_tags_are_stripped_and_empty_ones_left_out() -> None:
    tags = {" camera ": " X100 ", "lens": "  ", "price": "nan", " ": "5"}

    good, problems = validate_examples(
        [
            TrainingExample(image=JPEG, captions=["fine"], label=" red fox ", tags=tags),
            *(TrainingExample(image=JPEG, captions=["fine"], label=label) for label in (" ", "NaN", "none")),
        ]
    )

    assert [example.label for example in good] == ["red fox", "", "NaN", "none"]  # a text may be any class's name
    assert good[0].tags == {"camera": "X100", "price": "nan"}
    assert not problems


def test_an_example_is_kept_without_a_label_or_tag_that_is_too_long() -> None:
    tags = {"note": "y" * 300, "camera": "z" * LONGEST}
    example = TrainingExample(image=JPEG, captions=["fine"], label="x" * (LONGEST + 1), tags=tags, source="a")

    good, problems = validate_examples([example])

    assert [(example.label, example.tags) for example in good] == [("", {"camera": "z" * LONGEST})]
    assert [(problem.source, problem.field, problem.reason) for problem in problems] == [
        ("a", "label", "too_long"),
        ("a", "tags", "too_long"),
    ]
    assert problems[0].advice.startswith("the label has 201 characters, more than 200")
    assert problems[1].advice.startswith("the tag 'note' has 300 characters")


def test_an_example_without_a_source_is_named_by_its_place() -> None:
    _, problems = validate_examples([TrainingExample(image=JPEG, captions=["fine"]), TrainingExample(captions=["bad"])])

    assert [problem.source for problem in problems] == ["example 2"]


def test_leaves_the_callers_examples_as_they_were() -> None:
    example = TrainingExample(image=JPEG, captions=[" red ", ""])

    validate_examples([example])

    assert (example.captions, example.source) == ([" red ", ""], "")
