"""A section of a page: what was measured, how, and beside which targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from figures import Finding


@dataclass(frozen=True)
class Section:
    """`paragraphs` are Markdown: how it was measured, and tables."""

    title: str
    paragraphs: Sequence[str]
    findings: Sequence[Finding]

    def text(self) -> str:
        return "\n\n".join([f"## {self.title}", *self.paragraphs])
