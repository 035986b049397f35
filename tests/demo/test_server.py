"""What the server answers and refuses, asked without a browser."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest

import rpgmt
from rpgmt.demo.answer import LONGEST, Answer
from rpgmt.demo.limits import MAX_BYTES, MAX_QUEUE
from rpgmt.demo.server import DemoServer
from rpgmt.errors import UserError


def encoded(height: int, width: int, ending: str = ".png") -> bytes:
    image = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    return cv2.imencode(ending, image)[1].tobytes()


def request(server: DemoServer, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any, Any]:
    """The status, the headers, and the content: JSON as what it means, anything else as bytes."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    reply = connection.getresponse()
    content = reply.read()
    connection.close()
    return reply.status, reply.headers, json.loads(content) if reply.headers["Content-Type"] == "application/json" else content


def ask(server: DemoServer, body: bytes, boxes: Any = None, **headers: str) -> tuple[int, Any]:
    query = "" if boxes is None else f"?boxes={urllib.parse.quote(json.dumps(boxes))}"
    status, _, content = request(server, "POST", f"/ask{query}", body, **headers)
    return status, content


def soon(happens: Callable[[], bool]) -> bool:
    """Whether it does within seconds: a reply arrives before its thread has ended."""
    return any(happens() or time.sleep(0.02) for _ in range(250))


def test_an_answer_is_what_the_predictor_finds(server: DemoServer, predictor: rpgmt.Predictor) -> None:
    image, boxes = encoded(90, 120), [[10, 5, 50, 80], [40, 0, 60, 90]]
    status, found = ask(server, image, boxes)
    people = predictor(image, boxes)
    assert (status, found["width"], found["height"]) == (200, 120, 90)
    assert len(found["stages"]) == 3
    for stage, expected in zip(found["stages"], people.stages, strict=True):
        points = np.array(stage["poses"]["keypoints"])
        np.testing.assert_allclose(points[..., :2], expected.keypoints, atol=6e-4)
        np.testing.assert_allclose(points[..., 2], expected.keypoint_scores, atol=6e-4)
        assert stage["coco"] == expected.to_coco()
        assert stage["boxes"] == boxes
    for k, stage in enumerate(people.stages):
        for head, known in {
            "segmentation": stage["segmentation"].image > 0,
            "depth": stage["depth"].image > 0,
            "normals": np.abs(stage["normals"].image).sum(-1) > 0,
        }.items():
            status, headers, png = request(server, "GET", f"/answers/{found['number']}/{k}/{head}.png")
            picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
            assert (status, headers["Content-Type"], picture.shape) == (200, "image/png", (90, 120, 4))
            np.testing.assert_array_equal(picture[..., 3] > 0, known)


def test_depth_has_the_same_colours_in_all_stages(predictor: rpgmt.Predictor) -> None:
    answer = Answer(predictor(encoded(90, 120)), 0.0)
    near, far = answer.to_json()["depths"]["depth"]
    np.testing.assert_allclose([near, far], np.percentile(answer.people["depth"].image, (2, 98)))
    nearest = cv2.imdecode(np.frombuffer(answer.picture(0, "depth"), np.uint8), cv2.IMREAD_UNCHANGED)
    depth = answer.people.stages[0]["depth"].image
    colours = {tuple(nearest[place]) for place in zip(*np.nonzero(depth <= near), strict=True)}
    assert len(colours) <= 1  # all that is nearer than the last stage's nearest is one colour


def test_maps_of_large_images_are_smaller_and_lie_where_the_large_ones_do(predictor: rpgmt.Predictor) -> None:
    width, height = 2 * LONGEST, LONGEST
    answer = Answer(predictor(encoded(height, width, ".jpg"), [[400, 100, 700, 1000]]), 0.0)
    small = answer._map(-1, "depth")
    assert small.shape == (height // 2, width // 2)
    large = answer.people["depth"].image
    inside = (small > 0) & (cv2.erode((large > 0).astype(np.uint8), np.ones((5, 5)))[::2, ::2] > 0)
    assert inside.mean() > 0.1
    means = large.reshape(height // 2, 2, width // 2, 2).mean((1, 3))
    np.testing.assert_allclose(small[inside], means[inside], rtol=1e-2)


@pytest.mark.parametrize(
    ("body", "boxes", "status", "words"),
    [
        (b"Not a picture.", None, 415, "This is not an image that can be read: a PNG, a JPEG or a WebP can."),
        (b"", None, 415, "This is not an image that can be read"),
        (encoded(64, 64)[:-4000], None, 400, "This did not work: image: the file is broken (it ends too early)"),
        (encoded(64, 64, ".jpg")[:700], None, 400, "This did not work: image: "),
        (cv2.imencode(".png", np.zeros((7100, 7100), np.uint8))[1].tobytes(), None, 413, "The image has 7100 × 7100 pixels"),
        (encoded(8, 8), [[0, 0, 1, 1]] * 65, 400, "There are 65 boxes: 64 can be looked at."),
        (
            encoded(8, 8),
            [[20, 0, 5, 5]],
            400,
            "This did not work: image: the box (20, 0, 5, 5) is empty, beyond measure or outside",
        ),
        (encoded(8, 8), [[1, 2]], 400, "This did not work: image: the boxes are an array of shape (1, 2)"),
        (encoded(8, 8), {"a": [1]}, 400, "This did not work: image: the boxes are no numbers"),
        (encoded(8, 8), [[float("nan"), 0, 4, 4]], 400, "This did not work: image: the box (nan, 0, 4, 4)"),
    ],
)
def test_bad_questions_are_refused_in_words(server: DemoServer, body: bytes, boxes: Any, status: int, words: str) -> None:
    found, content = ask(server, body, boxes)
    assert (found, content["error"][: len(words)]) == (status, words)
    assert ask(server, encoded(16, 16))[0] == 200  # and the next one is answered


def test_a_file_that_is_too_large_is_refused_before_it_is_sent(server: DemoServer) -> None:
    for length, status in ((str(MAX_BYTES + 1), 413), ("9" * 12, 413), ("-1", 411), ("much", 411), ("9" * 40, 411)):
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
        connection.putrequest("POST", "/ask")
        connection.putheader("Content-Length", length)
        connection.endheaders(b"the first bytes")
        reply = connection.getresponse()
        assert reply.status == status
        assert reply.headers["Connection"] == "close"
        connection.close()
    assert soon(lambda: server.desk.queue == 0)


def test_unreadable_boxes(server: DemoServer) -> None:
    for boxes in ("[", "[" * 9000):
        status, _, content = request(server, "POST", f"/ask?boxes={boxes}", encoded(8, 8))
        assert (status, content) == (400, {"error": "The boxes cannot be read."})


@pytest.mark.parametrize(
    "path",
    [
        "/page.html",
        "/../server.py",
        "/%2e%2e/server.py",
        "/answers/1/0/depth.png",
        "/answers/1/0/..%2f..%2fx.png",
        "/ask",
    ],
)
def test_nothing_else_is_served(server: DemoServer, path: str) -> None:
    assert request(server, "GET", path)[0] == 404
    assert request(server, "POST", "/model")[0] == 404


def test_maps_that_are_not_there(server: DemoServer) -> None:
    _, found = ask(server, encoded(16, 16))
    for rest in ("0/keypoints", "0/other", "3/depth", "0/scene"):
        assert request(server, "GET", f"/answers/{found['number']}/{rest}.png")[0] == 404


def test_other_sites_and_other_names_are_strangers(server: DemoServer) -> None:
    own = f"127.0.0.1:{server.server_port}"
    for headers in ({"Origin": "http://example.com"}, {"Origin": "null"}, {"Host": "example.com"}, {"Host": "[::1"}):
        status, content = ask(server, encoded(8, 8), **headers)
        assert (status, content) == (403, {"error": f"Open http://{own}/ itself."})
    for headers in ({"Origin": f"http://{own}"}, {"Host": f"localhost:{server.server_port}"}, {"Host": "[::1]:80"}):
        assert ask(server, encoded(8, 8), **headers)[0] == 200


def test_every_answer_forbids_the_browser_to_go_elsewhere(server: DemoServer) -> None:
    for path in ("/", "/page.js", "/model", "/example.png", "/nothing"):
        _, headers, _ = request(server, "GET", path)
        assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'; ")
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_one_image_is_computed_at_a_time_and_the_queue_has_an_end(server: DemoServer) -> None:
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(ask(server, encoded(8, 8))[0])) for _ in range(MAX_QUEUE)]
    with server.desk._computing:
        for thread in threads:
            thread.start()
        assert soon(lambda: server.desk.queue == MAX_QUEUE)
        assert request(server, "GET", "/queue")[2] == {"queue": MAX_QUEUE}
        assert ask(server, encoded(8, 8)) == (503, {"error": "Too many images are waiting: try again in a moment."})
        assert statuses == []
    for thread in threads:
        thread.join()
    assert statuses == [200] * MAX_QUEUE
    assert soon(lambda: server.desk.queue == 0)


def send_slowly(server: DemoServer) -> socket.socket:
    """A browser that has sent 3 bytes of 100,000."""
    slow = socket.create_connection(("127.0.0.1", server.server_port), timeout=20)
    slow.sendall(b"POST /ask HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\nabc")
    return slow


def test_slow_senders_hold_no_place_in_the_queue(server: DemoServer) -> None:
    slow = [send_slowly(server) for _ in range(MAX_QUEUE + 2)]
    time.sleep(0.3)  # all of them are being read
    assert server.desk.queue == 0
    assert ask(server, encoded(8, 8))[0] == 200
    for connection in slow:
        connection.close()


def test_a_sender_has_so_long(server: DemoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rpgmt.demo.server.MAX_SECONDS", 0.3)
    with send_slowly(server) as slow:
        time.sleep(0.4)
        slow.sendall(b"d")
        reply = http.client.HTTPResponse(slow)
        reply.begin()
        assert (reply.status, json.loads(reply.read())["error"][:23]) == (408, "The image took too long")


def test_a_bug_is_said_on_the_page_and_keeps_its_traceback(
    server: DemoServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(server.desk, "predictor", None)
    assert ask(server, encoded(8, 8)) == (500, {"error": "Something broke: the terminal says what."})
    assert soon(lambda: "AttributeError" in capsys.readouterr().err)


def test_the_example_is_an_image_with_its_people(server: DemoServer) -> None:
    _, headers, png = request(server, "GET", "/example.png")
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert (headers["Content-Type"], image.shape) == ("image/png", (480, 480, 3))
    boxes = request(server, "GET", "/example.json")[2]["boxes"]
    assert len(boxes) == 3
    assert ask(server, png, boxes)[0] == 200


def test_a_taken_port_and_addresses_of_others() -> None:
    with DemoServer("127.0.0.1", 0) as first, pytest.raises(UserError, match=r"`--port` is .*, which is taken: give another"):
        DemoServer("127.0.0.1", first.server_port)
    for host in ("192.0.2.1", "no.such.host.invalid"):
        with pytest.raises(UserError, match=f"`--host` is {host}, which is no address of this machine"):
            DemoServer(host, 0)
