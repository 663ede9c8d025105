"""Small pieces of HTML. Text from outside is escaped here and nowhere else."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence


class Markup(str):
    """HTML that is safe to insert as it is."""

    __slots__ = ()


def escaped(text: object) -> Markup:
    """Markup as it is; anything else as text, with the characters that HTML reads escaped."""
    return text if isinstance(text, Markup) else Markup(html.escape(str(text)))


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """An element; `class_` is the attribute class, an underscore elsewhere is a hyphen.

    >>> tag("p", "1 < 2", class_="note")
    '<p class="note">1 &lt; 2</p>'
    """
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
    )
    return Markup(f"<{name}{said}>{join(children)}</{name}>")


def join(parts: Iterable[object]) -> Markup:
    """The parts one after another, text among them escaped."""
    return Markup("".join(escaped(part) for part in parts))


def table(
    head: Sequence[object], rows: Iterable[Sequence[object]], caption: str, kind: str = "numbers"
) -> Markup:
    """A table whose rows begin with a header cell, in a box that scrolls where it is too wide.

    Cells are set to the right as numbers are. Of the other kinds, the last column of `prose` has
    sentences, and a `log` begins with a number and a name.
    """
    top = tag("tr", *(tag("th", cell, scope="col") for cell in head))
    body = [
        tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:]))
        for row in rows
    ]
    parts = tag("caption", caption), tag("thead", top), tag("tbody", *body)
    return scrolling(tag("table", *parts, class_=kind), caption)


def pairs(rows: Iterable[tuple[str, object]], caption: str) -> Markup:
    """A table of names and values."""
    body = [tag("tr", tag("th", name, scope="row"), tag("td", value)) for name, value in rows]
    return scrolling(
        tag("table", tag("caption", caption), tag("tbody", *body), class_="pairs"), caption
    )


def scrolling(content: object, label: str) -> Markup:
    """A box that scrolls sideways, by keyboard too."""
    return tag("div", content, class_="scroll", tabindex="0", role="region", aria_label=label)


def card(title: str, *children: object, wide: bool = False) -> Markup:
    """A section under a heading; a wide one takes the whole row."""
    return tag("section", tag("h2", title), *children, class_="card wide" if wide else "card")


def bare_number(value: float | None) -> str:
    """Four significant digits, 'unknown' for None.

    >>> bare_number(0.012345), bare_number(None)
    ('0.01235', 'unknown')
    """
    return "unknown" if value is None else f"{value:.4g}"
