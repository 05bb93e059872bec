"""Text for the terminal that shows what others wrote, and lets none of it act."""

from typing import Any

from rich import text

from attune.characters import visible


class Text(text.Text):
    r"""rich's text, neither read as markup nor with control characters in it: those are written out, as `\x1b`."""

    def __init__(self, content: str = "", *args: Any, **kwargs: Any) -> None:
        super().__init__(visible(content), *args, **kwargs)
