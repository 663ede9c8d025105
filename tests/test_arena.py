"""Memory for the arrays of a job."""

import mmap
import re
from pathlib import Path

import pytest

from phalanx.arena import LARGE, Arena, Field

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage")


@pytest.mark.skipif(not HUGE_PAGES.exists(), reason="this kernel has no huge pages to ask for")
@pytest.mark.parametrize(
    ("nbytes", "is_sparse", "asked"),
    [(LARGE, False, True), (LARGE, True, False), (LARGE - mmap.PAGESIZE, False, False)],
)
def test_an_arena_that_will_be_full_asks_for_huge_pages(nbytes, is_sparse, asked):
    arena = Arena.private({"values": Field((nbytes // 8,))}, is_sparse)
    assert ("hg" in flags_of(arena["values"].ctypes.data)) is asked


def flags_of(address: int) -> list[str]:
    """What the kernel was told about the mapping that an address is in."""
    for part in re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text()):
        first, last = (int(edge, 16) for edge in part.split(" ", 1)[0].split("-"))
        if first <= address < last:
            return re.findall("VmFlags: (.*)", part)[0].split()
    raise AssertionError("no mapping has this address")
