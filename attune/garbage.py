"""Python's garbage collector, at rest where there is no garbage."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Modules that are imported in this block are not searched for garbage meanwhile.

    torch and what is built on it make hundreds of thousands of objects that stay for as long as the process. While they come
    the collector goes through all that came before, again and again.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
