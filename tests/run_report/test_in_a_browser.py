"""report.html in a real browser: what is on the page, at two widths, light and dark."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers.browser import chromium, window

from tools import report

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# WCAG's contrast ratio of each piece of text with what lies behind it.
CONTRASTS = """() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = colour => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = colour => {
    const linear = v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
    const [r, g, b] = rgba(colour).slice(0, 3).map(v => linear(v / 255));
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (rgba(colour)[3] > 250) return colour;
    }
    return 'white';
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; node = walker.nextNode();) {
    const element = node.parentElement;
    if (!node.textContent.trim() || !element.getClientRects().length) continue;
    const style = getComputedStyle(element);
    const [a, b] = [light(element.closest('svg') ? style.fill : style.color), light(behind(element))].sort((x, y) => y - x);
    found.push([(a + .05) / (b + .05), node.textContent]);
  }
  return found;
}"""
BACKGROUND = "getComputedStyle(document.body).backgroundColor"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def pages(pose: Path, multitask: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of one run, of several tasks, of several runs, and of one with names that are long and hostile."""
    folder = tmp_path_factory.mktemp("pages")
    hostile = folder / ("a_very_long_name_of_a_run_without_a_single_space_in_it" * 3)
    shutil.copytree(pose, hostile)
    metrics = json.loads((hostile / "metrics.json").read_text())
    metrics["val"]["<script>document.title='hacked'</script>" + "x" * 150] = 0.5
    metrics["data"]["name"] = "<img src=x onerror=\"document.title='hacked'\">" + "y" * 200
    (hostile / "metrics.json").write_text(json.dumps(metrics))
    for name, runs in {"several": [pose, multitask, hostile], "hostile": [hostile]}.items():
        assert report.main([*map(str, runs), "--out", str(folder / f"{name}.html")]) == 0
    return {"pose": pose / "report.html", "multitask": multitask / "report.html"} | {
        name: folder / f"{name}.html" for name in ("several", "hostile")
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", ["pose", "multitask", "several", "hostile"])
def test_the_page_fits_is_readable_and_asks_for_nothing(
    name: str, width: int, scheme: str, browser: Browser, pages: dict[str, Path]
) -> None:
    with window(browser, width, color_scheme=scheme) as watched:
        page = watched.open(pages[name].as_uri())
        assert "rpgmt" in page.title()
        assert not watched.overflows()
        page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert not watched.overflows()
        contrasts = page.evaluate(CONTRASTS)
        assert len(contrasts) > 100
        assert min(contrasts)[0] >= 4.5, min(contrasts)
        red, green, blue = (int(n) for n in page.evaluate(BACKGROUND)[4:-1].split(","))
        assert (red + green + blue > 600) == (scheme == "light")
        unread = "[...document.images].filter(image => !image.complete || !image.naturalWidth).length"
        assert page.evaluate("document.images.length") >= 24
        assert page.evaluate(unread) == 0
        assert (watched.errors, watched.requests) == ([], [])


def test_what_is_read_on_the_page(browser: Browser, pose: Path) -> None:
    metrics = json.loads((pose / "metrics.json").read_text())
    with window(browser, 1280) as watched:
        page = watched.open((pose / "report.html").as_uri())
        assert page.locator("h1").inner_text() == "pose-1 · pose · 2 stages · sharing rpg"
        headings = ["Run", "Metrics", "Curves", "Parameters", "Predictions", "What the stages have in common"]
        assert page.locator("h2").all_inner_texts() == headings
        row = page.get_by_role("row", name="AP50")
        assert row.locator("td").all_inner_texts() == [f"{metrics['val'][f'stage_{k}/AP50']:.3f}" for k in (1, 2)]
        assert f"{metrics['parameters']['trainable']:,}" in page.get_by_role("row", name="trainable").inner_text()
        curve = page.get_by_role("img", name="train/loss over step")
        box = curve.bounding_box()
        assert box is not None
        assert box["width"] > 200
        assert page.locator("#curves polyline").first.evaluate("line => line.getTotalLength()") > 50
        assert page.locator("#curves polyline").first.evaluate("line => getComputedStyle(line).stroke") != "none"
        assert page.locator("#predictions img").count() == 24
        page.get_by_role("link", name="Predictions").click()
        assert page.locator("#predictions").evaluate("one => Math.abs(one.getBoundingClientRect().top)") < 5
        assert not page.get_by_text("train_images:").is_visible()
        page.get_by_text("The whole config").click()
        assert page.get_by_text("train_images: 8").is_visible()


def test_names_of_rows_stay_where_a_table_scrolls_sideways(browser: Browser, pages: dict[str, Path]) -> None:
    with window(browser, 390) as watched:
        page = watched.open(pages["several"].as_uri())
        table = page.locator(".wide").first
        assert table.evaluate("one => one.scrollWidth - one.clientWidth") > 50
        name, cell = table.locator("tbody th").nth(1), table.locator("tbody td").first
        left = "one => one.getBoundingClientRect().left"
        before = name.evaluate(left), cell.evaluate(left)
        table.evaluate("one => one.scrollLeft = 50")
        assert name.evaluate(left) == before[0]
        assert cell.evaluate(left) == before[1] - 50
        assert name.evaluate("one => one.getBoundingClientRect().width") < 195  # figures have the other half
        assert name.evaluate("one => getComputedStyle(one).backgroundColor") != "rgba(0, 0, 0, 0)"
