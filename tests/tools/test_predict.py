"""tools/predict.py from end to end: a trained model on real files, and what it leaves in its folder."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from helpers import videos
from helpers.full_disk import no_file_larger_than
from helpers.people_files import write_coco

import rpgmt
from rpgmt import cli
from rpgmt.config.presets import ROOT
from rpgmt.data.coco.people import CocoPeople
from rpgmt.detection.detector import Corners, Detector
from rpgmt.engine.signals import StopSignals
from rpgmt.metrics.poses import PoseEvaluation
from rpgmt.prediction.command.notes import Notes
from rpgmt.prediction.command.run import Options, Run
from rpgmt.prediction.command.sources import Sources, Video
from tools import evaluate, predict, train

TINY = ["--channels", "8", "--depth", "1", "--stages", "2", "--rpg-size", "50%", "--batch-size", "4", "--workers", "0"]
TINY += ["--input-size", "32,32", "--warmup-steps", "0", "--device", "cpu", "--precision", "32", "--max-steps", "2"]
CPU = ["--device", "cpu"]


def strict(text: str) -> Any:
    """JSON without the numbers that JSON has not."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """People in COCO's format; the ids of the validation images need 64 bits."""
    folder = tmp_path_factory.mktemp("coco")
    write_coco(folder, 5)
    path = folder / "annotations/person_keypoints_val.json"
    document = json.loads(path.read_text())
    for entry in document["images"]:
        entry["id"] += 2**60
    for person in document["annotations"]:
        person["image_id"] += 2**60
    path.write_text(json.dumps(document))
    return folder


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "pose"
    assert train.main(["pose", *TINY, "--data", "coco", "--data-root", str(root), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def multi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("multi")
    sizes = ["--train-images", "4", "--val-images", "4", "--data-root", str(folder / "data")]
    assert train.main(["multitask", *TINY, *sizes, "--out", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture
def detector(tmp_path: Path) -> str:
    """Finds red and green squares."""
    from helpers.box_detector import box_detector  # which needs an extra

    return str(box_detector(tmp_path / "boxes.onnx", "torchvision", labels=[1, 1, 2]))


def annotations(root: Path) -> Path:
    return root / "annotations/person_keypoints_val.json"


def images(root: Path) -> str:
    return str(root / "images/val*.jpg")


@pytest.mark.parametrize("flags", [[], ["--flip-test"], ["--stop-after", "1"]])
def test_on_annotated_boxes_the_results_are_those_of_an_evaluation(
    flags: list[str], run: Path, root: Path, tmp_path: Path
) -> None:
    expected, out = tmp_path / "expected.json", tmp_path / "out"
    words = [str(run), *CPU, "--batch-size", "3", *flags]
    metrics = tmp_path / "metrics.json"
    protocol = ["--protocol", "pck"]
    assert evaluate.main([*words, *protocol, "--save-results", str(expected), "--json", str(metrics)]) == 0
    given = ["--boxes", str(annotations(root)), "--no-pictures", "--out", str(out)]
    assert predict.main([*words, images(root), *given]) == 0
    rows = strict((out / "results.json").read_text())
    wanted = json.loads(expected.read_text())
    assert len(wanted) > 4
    assert min(row["image_id"] for row in rows) >= 2**60
    assert [{key: row[key] for key in wanted[0]} for row in rows] == wanted
    people = CocoPeople.from_files(annotations(root), root / "images")
    poses = np.array([row["keypoints"] for row in rows]).reshape(len(rows), -1, 3)
    measured = PoseEvaluation(people, "pck", np.ones(len(rows))).metrics(list(range(len(rows))), poses)
    found = json.loads(metrics.read_text())["val"]
    assert measured["PCK@0.2"]
    assert {name: found[name] for name in measured} == measured


def test_boxes_of_a_detector_in_a_file_and_results_read_again(run: Path, root: Path, tmp_path: Path) -> None:
    document = json.loads(annotations(root).read_text())
    boxes = [
        {"image_id": person["image_id"], "category_id": 1, "bbox": person["bbox"], "score": 0.5 + 0.01 * i}
        for i, person in enumerate(document["annotations"])
    ]
    (tmp_path / "boxes.json").write_text(json.dumps([*boxes, {**boxes[0], "category_id": 3}]))
    words = [str(run), images(root), *CPU, "--no-pictures"]
    first = ["--boxes", str(tmp_path / "boxes.json"), "--annotations", str(annotations(root)), "--out", str(tmp_path / "1")]
    assert predict.main([*words, *first]) == 0
    rows = strict((tmp_path / "1/results.json").read_text())
    assert len(rows) == len(boxes)
    relates = str(tmp_path / "1/images.json")
    again = ["--boxes", str(tmp_path / "1/results.json"), "--annotations", relates, "--out", str(tmp_path / "2")]
    assert predict.main([*words, *again]) == 0
    assert [row["keypoints"] for row in strict((tmp_path / "2/results.json").read_text())] == [row["keypoints"] for row in rows]
    record = strict((tmp_path / "1/images.json").read_text())
    assert [entry["id"] for entry in record["images"]] == [entry["id"] for entry in document["images"]]
    assert sum(entry["people"] for entry in record["images"]) == len(rows)
    assert record["categories"][0]["keypoints"] == document["categories"][0]["keypoints"]


def test_maps_are_those_of_the_predictor(multi: Path, root: Path, tmp_path: Path) -> None:
    photo, out = root / "images/val0000.jpg", tmp_path / "out"
    assert predict.main([str(multi), str(photo), *CPU, "--out", str(out)]) == 0
    people = rpgmt.Predictor.load(multi, device="cpu")(photo)
    classes = cv2.imread(str(out / "maps/val0000_segmentation.png"), cv2.IMREAD_UNCHANGED)
    assert classes.dtype == np.uint8
    np.testing.assert_array_equal(classes, people["segmentation"].image)
    for name in ("depth", "normals"):
        np.testing.assert_array_equal(np.load(out / f"maps/val0000_{name}.npy"), people[name].image)
    (entry,) = strict((out / "images.json").read_text())["images"]
    written = {str(file.relative_to(out)) for folder in ("maps", "pictures") for file in (out / folder).iterdir()}
    assert set(entry["files"]) == written
    assert {"pictures/val0000.jpg", "pictures/val0000_depth.jpg", "pictures/val0000_normals.jpg"} <= written
    assert predict.main([str(multi), str(photo), *CPU, "--stages", "--out", str(tmp_path / "stages")]) == 0
    sheet = cv2.imread(str(tmp_path / "stages/pictures/val0000.jpg"))
    assert sheet.shape[1] > 2 * 96  # two stages
    assert sheet.shape[0] > 3 * 96  # three rows


def test_what_cannot_be_read_is_one_line_each_and_the_rest_is_done(
    run: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    good = (root / "images/val0000.jpg").read_bytes()
    for name in ("10.jpg", "9.jpg"):
        (folder / name).write_bytes(good)
    (folder / "no.jpg").write_bytes(b"no image")
    (folder / "cut.png").write_bytes(cv2.imencode(".png", np.zeros((50, 50, 3), np.uint8))[1].tobytes()[:60])
    assert cli.run(predict.main, [str(run), str(folder), *CPU, "--out", str(tmp_path / "out")], "predict.py") == 1
    said = capsys.readouterr()
    lines = said.err.strip().splitlines()
    assert len(lines) == 2
    for name in ("no.jpg", "cut.png"):
        assert sum(name in line for line in lines) == 1
    assert "2 images, 2 people" in said.out
    assert "2 skipped" in said.out
    assert all(len(line) <= 80 for line in said.out.replace(str(tmp_path), "").splitlines())
    record = strict((tmp_path / "out/images.json").read_text())
    assert [Path(entry["file_name"]).name for entry in record["images"]] == ["9.jpg", "10.jpg"]


@pytest.mark.parametrize(("width", "flags"), [(70000, []), (40000, ["--stages"])])
def test_a_picture_that_no_jpeg_holds_is_scaled_down_and_the_rest_is_done(
    width: int, flags: list[str], multi: Path, root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((60, width, 3), 90, np.uint8))
    words = [str(multi), str(tmp_path / "a.png"), str(root / "images/val0000.jpg"), *CPU, *flags]
    assert cli.run(predict.main, [*words, "--out", str(tmp_path / "out")]) == 0
    assert not capfd.readouterr().err
    assert cv2.imread(str(tmp_path / "out/pictures/a.jpg")).shape[1] == 65500
    record = strict((tmp_path / "out/images.json").read_text())
    assert [entry["width"] for entry in record["images"]] == [width, 96]
    assert {str(file.relative_to(tmp_path / "out")) for file in (tmp_path / "out").glob("*/*")} == {
        file for entry in record["images"] for file in entry["files"]
    }


@pytest.mark.parametrize(("size", "name"), [(20, "results.json"), (600, "pictures/")])
def test_a_full_disk_is_one_line_and_leaves_no_half_of_a_file(
    size: int, name: str, run: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = [str(run), images(root), *CPU, "--boxes", str(annotations(root)), "--out", str(out)]
    with no_file_larger_than(size):
        assert cli.run(predict.main, words, "predict.py") == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "cannot be written" in line]
    assert len(lines) == 1
    assert f"{out / name}" in lines[0] or "images.json" in lines[0]
    for path in out.rglob("*.json"):
        json.loads(path.read_text())
    assert not list(out.rglob("*.jpg"))


def test_when_nothing_can_be_read_nothing_is_left(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("no.mp4", "no.jpg"):
        (tmp_path / name).write_bytes(b"nothing")
    for sources in (["no.mp4"], ["no.jpg"], ["no.jpg", "no.mp4"]):
        assert cli.run(predict.main, [str(run), *sources, *CPU]) == 1
        said = capfd.readouterr()
        assert said.out == f"nothing was predicted, {len(sources)} skipped\n"
        assert [line.split(":")[1].strip() for line in said.err.strip().splitlines()] == sources
        assert not any((tmp_path / "predictions").iterdir())


def test_people_of_a_video_keep_their_ids(run: Path, detector: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    video = videos.write_video(tmp_path / "walk.mp4", 24)
    out = tmp_path / "out"
    words = [str(run), str(video), *CPU, "--detector", detector, "--min-point-score", "0.01"]
    words += ["--track", "--smooth", "--out", str(out)]
    assert predict.main(words) == 0
    assert "24 frames, 48 people" in capfd.readouterr().out
    rows = strict((out / "videos/walk.json").read_text())
    assert [row["frame"] for row in rows] == [number for number in range(24) for _ in range(2)]
    assert rows[-1]["seconds"] == pytest.approx(2.3)
    who = {
        (row["track_id"], colour)
        for row in rows
        for colour, box in enumerate(videos.squares(row["frame"]))
        if np.abs(np.subtract(box, row["bbox"])).max() < 6
    }
    assert {id for id, _ in who} == {1, 2}
    assert len(who) == 2  # each is one colour's throughout, as they pass each other
    capture = cv2.VideoCapture(str(out / "videos/walk.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 24
    assert capture.get(cv2.CAP_PROP_FPS) == 10
    (entry,) = strict((out / "images.json").read_text())["videos"]
    assert entry == {
        "file_name": str(video),
        "frames": 24,
        "frames_per_second": 10,
        "files": ["videos/walk.json", "videos/walk.mp4"],
    }
    rough = tmp_path / "rough"
    assert predict.main([*words[:-3], "--no-pictures", "--out", str(rough)]) == 0
    other = strict((rough / "videos/walk.json").read_text())
    assert [row["track_id"] for row in other] == [row["track_id"] for row in rows]
    assert other[:2] == rows[:2]  # nothing to smooth yet
    assert [row["keypoints"] for row in other] != [row["keypoints"] for row in rows]
    assert not (rough / "videos/walk.mp4").exists()


def test_a_video_that_breaks_off_and_frames_without_people(
    run: Path, detector: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    videos.break_off(videos.write_video(tmp_path / "half.avi", 30, codec="MJPG"), 0.5)
    (tmp_path / "no.mp4").write_bytes(b"no video")
    writer = cv2.VideoWriter(str(tmp_path / "dark.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, videos.SIZE)
    for _ in range(5):
        writer.write(np.zeros((videos.SIZE[1], videos.SIZE[0], 3), np.uint8))
    writer.release()
    names = [str(tmp_path / name) for name in ("half.avi", "no.mp4", "dark.mp4")]
    words = [str(run), *names, *CPU, "--detector", detector, "--out", str(tmp_path / "out")]
    assert cli.run(predict.main, words, "predict.py") == 1
    half, no, dark = capfd.readouterr().err.strip().splitlines()
    assert "half.avi: it breaks off after" in half
    assert "of 30 frames" in half
    assert "no.mp4: not a video that can be read" in no
    assert "dark.mp4: nobody was found in 5 frames, the first is 0" in dark
    assert 20 < len(strict((tmp_path / "out/videos/half.json").read_text())) < 60
    assert strict((tmp_path / "out/videos/dark.json").read_text()) == []
    assert [entry["frames"] for entry in strict((tmp_path / "out/images.json").read_text())["videos"]][1] == 5


def test_sources_of_one_name_and_hostile_names_stay_apart_and_inside(run: Path, root: Path, tmp_path: Path) -> None:
    good = (root / "images/val0000.jpg").read_bytes()
    names = ["a/x.jpg", "b/x.jpg", "a/..%2f.jpg", "a/\n.jpg", "a/-rf;$(x).jpg", f"a/{'ü' * 120}.jpg", "a/X.JPG"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(good)
    os.rename(tmp_path / "a/x.jpg", os.fsencode(tmp_path / "a") + b"/\xff.jpg")  # no text at all
    out = tmp_path / "out"
    assert predict.main([str(run), str(tmp_path / "a"), str(tmp_path / "b"), *CPU, "--out", str(out)]) == 0
    record = strict((out / "images.json").read_text(encoding="utf-8"))
    files = [file for entry in record["images"] for file in entry["files"]]
    assert len(set(files)) == len(names)
    assert {str(file.relative_to(out)) for file in (out / "pictures").iterdir()} == set(files)
    assert len(strict((out / "results.json").read_text())) == len(names)


def test_weaker_people_are_left_out(run: Path, root: Path, tmp_path: Path) -> None:
    words = [str(run), images(root), *CPU, "--no-pictures"]
    assert predict.main([*words, "--out", str(tmp_path / "all")]) == 0
    scores = [row["score"] for row in strict((tmp_path / "all/results.json").read_text())]
    least = sorted(scores)[2]
    assert predict.main([*words, "--min-score", str(least), "--out", str(tmp_path / "some")]) == 0
    assert [row["score"] for row in strict((tmp_path / "some/results.json").read_text())] == [s for s in scores if s >= least]


def test_folders_count_up_and_nothing_is_overwritten(
    run: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        assert predict.main([str(run), images(root), *CPU, "--no-pictures"]) == 0
        assert f"written: predictions/{number}" in capsys.readouterr().out
    before = (tmp_path / "predictions/1/results.json").read_bytes()
    assert cli.run(predict.main, [str(run), images(root), "--out", "predictions/1"]) == 2
    assert "`--out` is predictions/1: not an empty folder" in capsys.readouterr().err
    assert (tmp_path / "predictions/1/results.json").read_bytes() == before
    assert cli.run(predict.main, [str(run), images(root), *CPU, "--stop-after", "9"]) == 2
    assert not (tmp_path / "predictions/3").exists()


def test_a_failed_network_is_one_line_and_leaves_whole_files(
    run: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(run / "model.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        metadata = {name: text for name, text in file.metadata().items() if name != "digest"}
    tensors["heads.1.keypoints.bias"] += torch.nan
    save_file(tensors, tmp_path / "broken.safetensors", metadata)
    out = tmp_path / "out"
    assert cli.run(predict.main, [str(tmp_path / "broken.safetensors"), images(root), *CPU, "--out", str(out)]) == 2
    assert "numbers that are not finite" in capsys.readouterr().err
    assert strict((out / "results.json").read_text()) == []
    assert {file.name for file in out.iterdir()} >= {"results.json", "images.json"}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nothing", "0"], "nothing does not exist: give a run folder"),
        (["DIR", "nowhere.jpg"], "nowhere.jpg: no such file"),
        (["DIR", "DIR"], "no image in this folder"),
        (["DIR", "no*.jpg"], "no*.jpg: no such file"),
        (["DIR", "0", "--batch-size", "0"], "`--batch-size` is 0: give at least 1"),
        (["DIR", "0", "--smooth"], "`--smooth` is given without --track"),
        (["DIR", "0", "--annotations", "x"], "`--annotations` is given without --boxes"),
        (["DIR", "0", "--boxes", "x"], "`--boxes` is for images: leave out camera 0"),
        (["DIR", "0", "--detector-threshold", "2", "--detector", "x"], "`--detector-threshold` is 2.0"),
        (["DIR", "0", "--min-score", "nan"], "`--min-score` is nan: give a score"),
        (["DIR", "README.md", "nowhere.jpg"], "nowhere.jpg: no such file"),
        (["DIR", "0", "--tarck"], "did you mean `--track`?"),
        (["DIR"], "required: SOURCE"),
    ],
)
def test_mistakes_are_one_line_before_torch_is_loaded(arguments: list[str], line: str, tmp_path: Path) -> None:
    code = "import sys; from rpgmt import cli; from tools import predict; s = cli.run(predict.main, sys.argv[1:]);"
    words = [str(tmp_path) if word == "DIR" else word for word in arguments]
    command = [sys.executable, "-c", f"{code} print('torch' in sys.modules); sys.exit(s)", *words]
    found = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert found.returncode == 2, found.stderr
    (said,) = found.stderr.strip().splitlines()
    assert line in said
    assert found.stdout.strip() == "False"


class _Camera(http.server.BaseHTTPRequestHandler):
    """An endless stream of JPEG images, as network cameras send it."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        with contextlib.suppress(OSError):
            for number in range(10**6):
                data = cv2.imencode(".jpg", videos.frame(number % 40)[:, :, ::-1])[1].tobytes()
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                self.wfile.write(head.encode() + data + b"\r\n")
                time.sleep(0.02)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def camera() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Camera)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/stream.mjpg"
    server.shutdown()
    server.server_close()


def test_ctrl_c_ends_a_stream_with_everything_written(
    run: Path, camera: str, tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, str(ROOT / "tools/predict.py"), str(run), camera, *CPU, "--out", str(out)]
    process = start(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        part = out / "videos/stream.json.part"
        until = time.monotonic() + 90
        while time.monotonic() < until and process.poll() is None and not (part.exists() and part.stat().st_size > 5000):
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        said, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, errors
    assert errors.strip() == "predict.py: interrupted"
    rows = strict((out / "videos/stream.json").read_text())
    assert len(rows) > 5
    assert f"{len(rows)} frames" in said
    numbers = [row["frame"] for row in rows]
    assert numbers == sorted(set(numbers))
    capture = cv2.VideoCapture(str(out / "videos/stream.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == numbers[-1] + 1  # it keeps time
    assert not list(out.rglob("*.part"))


class _Interrupted(Detector):
    """Ctrl-C comes while it looks at the second image."""

    def __init__(self) -> None:
        super().__init__(0.5, None)
        self.seen = 0

    def _detect(self, images: Sequence[np.ndarray]) -> list[Corners]:
        self.seen += 1
        if self.seen == 2:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)
        return [Corners(np.array([[0.0, 0.0, 40.0, 40.0]]), np.ones(1)) for _ in images]


@pytest.mark.parametrize("kind", ["images", "video"])
def test_ctrl_c_does_not_wait_until_a_batch_of_images_is_detected(kind: str, run: Path, root: Path, tmp_path: Path) -> None:
    detector = _Interrupted()
    predictor = rpgmt.Predictor.load(run, device="cpu", detector=detector)
    if kind == "images":
        sources = Sources([str(root / "images/val0000.jpg")] * 40, [])
    else:
        sources = Sources([], [Video(str(videos.write_video(tmp_path / "walk.mp4", 40)))])
    (tmp_path / "out").mkdir()
    with StopSignals(speak=False) as stop:
        Run(predictor, tmp_path / "out", Options(), Notes("predict.py"), stop).predict(sources)
    assert stop.asked
    assert detector.seen <= 3
    assert not list((tmp_path / "out").rglob("*.part"))
