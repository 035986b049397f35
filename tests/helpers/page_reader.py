"""What is on an HTML page, read by Python's own parser."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"br", "img", "link", "meta"}


@dataclass
class Element:
    """An element of the page."""

    name: str
    attributes: dict[str, str]
    children: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text in it."""
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    def all(self, name: str) -> list[Element]:
        """The elements of that name in it, in their order."""
        found = []
        for child in self.children:
            if isinstance(child, Element):
                found += [child] * (child.name == name) + child.all(name)
        return found

    def by_id(self, name: str) -> Element:
        """The only element with that id."""
        (found,) = [one for one in self.everything() if one.attributes.get("id") == name]
        return found

    def everything(self) -> list[Element]:
        """All elements in it."""
        inside = [child for child in self.children if isinstance(child, Element)]
        return inside + [one for child in inside for one in child.everything()]

    def rows(self) -> dict[str, list[str]]:
        """Of a table: the cells of its body by the names of the rows."""
        (body,) = self.all("tbody")
        return {row.all("th")[0].text: [cell.text for cell in row.all("td")] for row in body.all("tr")}

    def table(self, caption: str) -> Element:
        """The only table with that beginning of its caption."""
        (found,) = [table for table in self.all("table") if table.all("caption")[0].text.startswith(caption)]
        return found


def read_page(text: str) -> Element:
    """The page's tree. Elements that are left open, or closed in another order, fail."""

    class Reader(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.open = [Element("", {})]

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.handle_startendtag(tag, attrs)
            if tag not in VOID:
                last = self.open[-1].children[-1]
                assert isinstance(last, Element)
                self.open.append(last)

        def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.open[-1].children.append(Element(tag, {name: value or "" for name, value in attrs}))

        def handle_endtag(self, tag: str) -> None:
            assert self.open.pop().name == tag

        def handle_data(self, data: str) -> None:
            self.open[-1].children.append(data)

    reader = Reader()
    reader.feed(text)
    reader.close()
    assert len(reader.open) == 1
    return reader.open[0]
