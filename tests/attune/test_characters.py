"""What others wrote, made fit to be shown."""

from attune.characters import shortened, visible


def test_long_texts_are_shortened() -> None:
    assert shortened("as it is", 8) == "as it is"
    assert shortened("too long by far", 9) == "too long…"


def test_control_characters_are_written_out_and_emoji_are_not() -> None:
    assert visible("red \x1b[31m\r👩‍🚀\t") == r"red \x1b[31m\r👩‍🚀" + "\t"
