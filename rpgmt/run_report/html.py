"""HTML that is escaped unless it was made here: names of key points, classes, files and runs may hold anything."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


EMPTY = ("br", "circle", "col", "img", "line", "link", "meta", "path", "polyline", "rect")
"""Elements without content."""


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """An element.

    Args:
        name: of the element.
        children: what it holds; escaped, but for `Html`. None is left out.
        attributes: values are escaped. None is left out; `class_` is `class`, and other _ are -.
    """
    words = [name]
    for key, value in attributes.items():
        if value is not None:
            words.append(f'{key.rstrip("_").replace("_", "-")}="{html.escape(str(value), quote=True)}"')
    inside = " ".join(words)
    return Html(f"<{inside} />") if name in EMPTY else Html(f"<{inside}>{joined(children)}</{name}>")


def joined(parts: Iterable[object], between: str = "") -> Html:
    """Parts one after the other, escaped but for `Html`; None is left out."""
    return Html(between.join(part if isinstance(part, Html) else html.escape(str(part)) for part in parts if part is not None))


def table(caption: str, head: Sequence[object], rows: Iterable[Sequence[object]], *, class_: str | None = None) -> Html:
    """A table whose first column names its rows. It scrolls on its own where it is wider than the page.

    Args:
        caption: what it shows.
        head: names of the columns; empty for none.
        rows: their cells.
        class_: of the table.
    """
    body = [tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:])) for row in rows]
    names = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in head))) if head else None
    inside = tag("table", tag("caption", caption), names, tag("tbody", *body), class_=class_)
    return tag("div", inside, class_="wide", tabindex=0, role="region", aria_label=caption)


def details(summary: str, *children: object) -> Html:
    """What is folded away until it is asked for."""
    return tag("details", tag("summary", summary), *children)
