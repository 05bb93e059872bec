"""The C library's allocator, set for work that needs as much memory again and again."""

import ctypes
from contextlib import suppress

# Of glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_KEPT = (1 << 30, 32 << 20)
"""Bytes. A larger block is given back when it is freed; glibc takes the first, or before 2.35 no more than the second."""


def keep_memory() -> None:
    """Has freed memory wait in this process for its next use; where the C library cannot, nothing changes.

    A step frees all its activations and gradients, and the next one needs as many: given back in between, the system clears
    each page anew. (torch's "Performance Tuning Guide" advises other allocators for the same reason.)
    """
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        if any(mallopt(M_MMAP_THRESHOLD, size) for size in LARGEST_KEPT):
            mallopt(M_TRIM_THRESHOLD, -1)


def give_back_memory() -> None:
    """Gives freed memory back once, so that it counts as free and others can have it."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
