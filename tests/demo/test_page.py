"""The page in a real browser: what a reader presses, drags and sees."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from helpers.browser import Watched, window
from helpers.demo_server import NAME, serving

import rpgmt
from rpgmt.demo.server import DemoServer
from rpgmt.synthetic.render import render

sync_api = pytest.importorskip("playwright.sync_api", reason="no browser tests: playwright is not installed (uv sync)")

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of somebody, wider than high; its name would be a tag if it were not escaped."""
    image = cv2.copyMakeBorder(render(7, 3, size=120).image, 0, 0, 40, 40, cv2.BORDER_REPLICATE)
    file = tmp_path_factory.mktemp("photos") / "<b>somebody.png"
    assert cv2.imwrite(str(file), image[:, :, ::-1])
    return file


@contextmanager
def demo(browser: Browser, server: DemoServer, width: int = 1280, **options: Any) -> Iterator[tuple[Page, Watched]]:
    """The page, loaded; it asks its own server for everything."""
    with window(browser, width, **options) as watched:
        page = watched.open(server.address)
        page.wait_for_selector("#main:not([hidden])")
        yield page, watched
        assert [url for url in watched.requests if not url.startswith((server.address, "blob:"))] == []
        assert not watched.overflows()


def choose(page: Page, file: Path) -> None:
    page.set_input_files("#input", file)


def says(page: Page, words: str) -> None:
    """Waits until the line below the picture contains them."""
    sync_api.expect(page.locator("#status")).to_contain_text(words)


def wait_until_answered(page: Page) -> None:
    says(page, "all stages in")


def wait_for_maps(page: Page) -> None:
    sync_api.expect(page.locator("#status")).not_to_contain_text("drawing the maps")


def pixels(page: Page) -> str:
    """What is drawn."""
    return str(page.evaluate("document.getElementById('canvas').toDataURL()"))


def drag(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    """From place to place of the picture, in parts of its size."""
    frame = page.locator("#canvas").bounding_box()
    assert frame is not None
    places = [(frame["x"] + x * frame["width"], frame["y"] + y * frame["height"]) for x, y in (start, end)]
    page.mouse.move(*places[0])
    page.mouse.down()
    page.mouse.move(*places[1], steps=3)
    page.mouse.up()


def hover(page: Page, place: tuple[float, float]) -> None:
    frame = page.locator("#canvas").bounding_box()
    assert frame is not None
    page.mouse.move(frame["x"] + place[0] * frame["width"], frame["y"] + place[1] * frame["height"])


def box_rows(page: Page) -> list[list[float]]:
    script = "rows => rows.map(row => [...row.querySelectorAll('input')].map(input => Number(input.value)))"
    return list(page.eval_on_selector_all("#boxes li", script))


def test_an_image_a_box_its_stages_and_tasks(browser: Browser, server: DemoServer, photo: Path) -> None:
    with demo(browser, server) as (page, watched):
        assert page.locator("h1").text_content() == NAME
        choose(page, photo)
        wait_until_answered(page)
        assert page.locator("#file").text_content() == "<b>somebody.png, 200 × 120"
        page.locator("#threshold").fill("0")
        whole = pixels(page)

        drag(page, (0.3, 0.05), (0.7, 0.95))
        page.wait_for_selector("#boxes li")
        wait_until_answered(page)
        np.testing.assert_allclose(box_rows(page), [[60, 6, 80, 108]], atol=1)
        boxed = pixels(page)
        assert boxed != whole

        asked = [url for url in watched.requests if "/ask" in url]
        assert len(asked) == 2
        seen: list[str] = []
        for head in ("Key points", "Segmentation", "Depth", "Normals"):
            page.get_by_role("button", name=head, exact=True).click()
            wait_for_maps(page)
            before = len(watched.requests)
            pictures = []
            for stage in ("1", "2", "3"):
                page.locator("#stage").fill(stage)
                assert page.locator("#stage-value").text_content() == f"{stage} of 3"
                pictures.append(pixels(page))
            assert len(watched.requests) == before  # the stages are there: nothing is asked for
            seen += pictures
        assert len(set(seen)) == 12
        page.locator("#opacity").fill("0")
        assert pixels(page) not in seen
        assert watched.errors == []


def test_a_threshold_hides_points_and_a_table_lists_them(
    browser: Browser, server: DemoServer, photo: Path, predictor: rpgmt.Predictor
) -> None:
    people = predictor(photo)
    scores = people.keypoint_scores
    assert 0 < (scores >= 0.3).sum() < 17
    with demo(browser, server) as (page, watched):
        choose(page, photo)
        wait_until_answered(page)
        page.locator("#threshold").fill("0")
        assert "17 of 17 points" in str(page.locator("#status").text_content())
        points = people.keypoints[0]
        inside = (points > 2).all(1) & (points < np.array(people.image_size) - 3).all(1)
        place = points[inside][0]
        hover(page, tuple((place + 0.5) / people.image_size))
        there = np.flatnonzero(np.hypot(*(points - place).T) < 0.1)  # fresh weights may find several at one place
        texts = {f"{people.names[k].replace('_', ' ')} {scores[0, k]:.2f}" for k in there}
        assert page.locator("#tip").text_content() in texts
        shown = pixels(page)
        page.locator("#threshold").fill("0.3")
        assert f"{(scores >= 0.3).sum()} of 17 points" in str(page.locator("#status").text_content())
        assert pixels(page) != shown
        page.locator("#all summary").click()
        sync_api.expect(page.locator("#table tr")).to_have_count(17)
        assert "left wrist" in page.locator("#table").inner_text()
        assert watched.errors == []


def test_boxes_are_undone_removed_typed_and_cleared(browser: Browser, server: DemoServer, photo: Path) -> None:
    with demo(browser, server) as (page, watched):
        choose(page, photo)
        wait_until_answered(page)
        hover(page, (0.6, 0.5))
        page.mouse.down()
        page.mouse.up()
        page.keyboard.press("Escape")  # the first corner was a mistake
        drag(page, (0.1, 0.1), (0.4, 0.9))
        drag(page, (0.9, 0.9), (0.5, 0.2))  # from any corner to its opposite
        wait_until_answered(page)
        np.testing.assert_allclose(box_rows(page), [[20, 12, 60, 96], [100, 24, 80, 84]], atol=1)
        says(page, "2 people")
        page.get_by_role("button", name="Remove box 1").click()
        np.testing.assert_allclose(box_rows(page), [[100, 24, 80, 84]], atol=1)
        page.get_by_role("button", name="Add", exact=True).click()
        page.get_by_label("width of box 2").fill("70")
        page.get_by_label("width of box 2").press("Tab")
        assert box_rows(page)[1] == [50, 15, 70, 90]
        page.get_by_role("button", name="Undo").click()
        assert len(box_rows(page)) == 1
        page.get_by_role("button", name="Clear").click()
        assert box_rows(page) == []
        assert watched.errors == []


def test_a_detector_finds_the_boxes_until_some_are_drawn(browser: Browser, run: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="no detector: onnxruntime is not installed")
    from helpers.box_detector import COLOURS, box_detector

    image = np.zeros((100, 160, 3), np.uint8)
    for k, colour in enumerate(COLOURS.tolist()):
        image[20:80, 10 + 50 * k : 40 + 50 * k] = colour[::-1]
    assert cv2.imwrite(str(tmp_path / "boxes.png"), image)
    detector = box_detector(tmp_path / "detector.onnx")
    predictor = rpgmt.Predictor.load(run, device="cpu", detector=detector)
    with serving(predictor) as server, demo(browser, server) as (page, watched):
        choose(page, tmp_path / "boxes.png")
        says(page, "3 people")
        assert "the detector finds the people" in str(page.locator("#hint").text_content())
        assert box_rows(page) == []
        drag(page, (0.1, 0.1), (0.5, 0.9))
        says(page, "1 person")
        assert watched.errors == []


def test_a_phone_in_the_dark(browser: Browser, server: DemoServer, photo: Path) -> None:
    options = {"has_touch": True, "is_mobile": True, "color_scheme": "dark"}
    with demo(browser, server, 390, **options) as (page, watched):
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 22, 27)"
        page.locator(".example:visible").tap()
        wait_until_answered(page)
        assert len(box_rows(page)) == 3  # the people of the example
        frame = page.locator("#canvas").bounding_box()
        assert frame is not None
        assert frame["width"] <= 390
        for part in (0.2, 0.6):  # two corners
            page.touchscreen.tap(frame["x"] + part * frame["width"], frame["y"] + part * frame["height"])
        assert len(box_rows(page)) == 4
        np.testing.assert_allclose(box_rows(page)[3], [96, 96, 192, 192], atol=3)
        assert watched.errors == []


def test_the_camera(browser: Browser, server: DemoServer) -> None:
    with demo(browser, server, permissions=["camera"]) as (page, watched):
        page.locator(".camera:visible").click()
        page.get_by_role("button", name="Take the picture").click()
        wait_until_answered(page)
        assert "camera.png" in str(page.locator("#file").text_content())
        assert page.locator("#video").evaluate("video => video.srcObject") is None  # and its light is off
        assert watched.errors == []


def test_downloads_are_what_the_stage_found(
    browser: Browser, server: DemoServer, photo: Path, predictor: rpgmt.Predictor, tmp_path: Path
) -> None:
    with demo(browser, server) as (page, _):
        choose(page, photo)
        wait_until_answered(page)
        drag(page, (0.3, 0.05), (0.7, 0.95))
        page.wait_for_selector("#boxes li")
        wait_until_answered(page)
        page.locator("#stage").fill("2")
        with page.expect_download() as waiting:
            page.get_by_role("button", name="COCO JSON").click()
        rows = json.loads(waiting.value.path().read_text())
        assert waiting.value.suggested_filename.endswith("-stage-2.json")
        assert rows == predictor(photo, box_rows(page)).stages[1].to_coco(image_id=photo.name)
        page.get_by_role("button", name="Depth").click()
        wait_for_maps(page)
        with page.expect_download() as waiting:
            page.get_by_role("button", name="PNG picture").click()
        picture = cv2.imread(str(waiting.value.path()))
        assert picture is not None
        assert picture.shape == (600, 1000, 3)  # enlarged, so that lines are finer than pixels
        assert waiting.value.suggested_filename.endswith("-depth-stage-2.png")


def test_what_is_no_image_or_too_large_is_refused_in_words(
    browser: Browser, server: DemoServer, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes.txt").write_text("Not a picture.")
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(21 * 2**20)
    with demo(browser, server) as (page, watched):
        for name, words in (
            ("notes.txt", "notes.txt is not an image that can be read: a PNG, a JPEG or a WebP can."),
            ("large.png", "large.png has 21 MB, and 20 are the most: make it smaller."),
        ):
            choose(page, tmp_path / name)
            page.wait_for_selector("#problem:visible")
            assert page.locator("#problem").text_content() == words
        assert watched.errors == []
        assert not [url for url in watched.requests if "/ask" in url]
        choose(page, photo)
        wait_until_answered(page)
        assert page.locator("#problem").is_hidden()

        monkeypatch.setattr("rpgmt.demo.desk.MAX_PIXELS", 20_000)
        page.get_by_role("button", name="Add", exact=True).click()
        page.wait_for_selector("#problem:visible")
        assert "The image has 200 × 120 pixels" in str(page.locator("#problem").text_content())
        assert page.locator("#downloads").is_hidden()
        assert len(watched.errors) == 1  # the browser's own line about the status
        assert "413" in watched.errors[0]


def test_the_page_says_that_it_waits(browser: Browser, server: DemoServer, photo: Path) -> None:
    with demo(browser, server) as (page, watched):
        with server.desk._computing:  # another reader's image is computed
            choose(page, photo)
            says(page, "Computing … One image at a time.")
        wait_until_answered(page)
        assert watched.errors == []


def test_classes_are_listed_with_their_probabilities(
    browser: Browser, server: DemoServer, photo: Path, predictor: rpgmt.Predictor
) -> None:
    with demo(browser, server) as (page, watched):
        choose(page, photo)
        wait_until_answered(page)
        page.get_by_role("button", name="Scene").click()
        for k, stage in enumerate(predictor(photo).stages):
            page.locator("#stage").fill(str(k + 1))
            (found,) = stage["scene"].probabilities
            expected = [f"{('street', '<b>beach', 'living room')[c]}\n{found[c] * 100:.1f} %" for c in np.argsort(-found)]
            assert [row.strip() for row in page.locator(".guess").all_inner_texts()] == expected
        assert watched.errors == []


def test_a_demo_that_does_not_answer_is_said_to_have_ended(browser: Browser, server: DemoServer, photo: Path) -> None:
    with demo(browser, server) as (page, _):
        page.route("**/ask*", lambda route: route.abort())
        choose(page, photo)
        page.wait_for_selector("#problem:visible")
        assert page.locator("#problem").text_content() == "The demo does not answer: does it still run in its terminal?"
