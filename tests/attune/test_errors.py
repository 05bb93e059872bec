import inspect
import re

import pytest

from attune import errors
from attune.errors import AttuneError, error_from_name

CLASSES = [value for _, value in inspect.getmembers(errors, inspect.isclass) if issubclass(value, AttuneError)]


def test_finds_the_error_classes() -> None:
    assert len(CLASSES) >= 10


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_an_error_crosses_the_wire_by_name_and_message(kind: type[AttuneError]) -> None:
    message = "row 12: 'ünïcode'\n- and a second line"

    received = error_from_name(kind.__name__, message)

    assert type(received) is kind
    assert str(received) == message


@pytest.mark.parametrize("name", ["SomebodyElsesError", "error_from_name", "__doc__", "Exception"])
def test_an_unknown_name_gives_a_plain_error_that_keeps_name_and_message(name: str) -> None:
    received = error_from_name(name, "it broke")

    assert type(received) is AttuneError
    assert str(received) == f"{name}: it broke"


def test_no_name_gives_the_message_alone() -> None:
    assert str(error_from_name("", "it broke")) == "it broke"


def test_the_drawn_hierarchy_is_that_of_the_classes() -> None:
    drawn: dict[str, str] = {}
    parents: dict[int, str] = {}
    for line in inspect.getdoc(errors).splitlines():
        match = re.match(r"([│├└─\s]*)([A-Z]\w+)\s{2,}\S", line)
        if match:
            depth, name = len(match[1]) // 4, match[2]
            drawn[name] = parents.get(depth - 1, "Exception")
            parents[depth] = name

    assert drawn == {kind.__name__: kind.__base__.__name__ for kind in CLASSES}


def test_the_drawing_describes_each_class_as_its_docstring_does() -> None:
    text = inspect.getdoc(errors)

    for kind in CLASSES:
        sentence = inspect.getdoc(kind).splitlines()[0].rstrip(".")
        assert re.search(rf"{kind.__name__}\s+{re.escape(sentence[0].lower() + sentence[1:])}\n", text), kind
