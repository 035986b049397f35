"""What is to be predicted on: image files, videos, cameras and streams, from what a user writes."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rpgmt.data.images import IMAGE_SUFFIXES
from rpgmt.errors import UserError

_STILL_SUFFIXES = (
    *(".arw", ".avif", ".cr2", ".cr3", ".dng", ".eps", ".exr", ".hdr", ".heic", ".heif", ".ico", ".jfif", ".jp2"),
    *(".jpe", ".jxl", ".nef", ".orf", ".pbm", ".pdf", ".pgm", ".ppm", ".psd", ".raf", ".rw2", ".svg", ".tga", ".xcf"),
)
"""Of still images that are not: as videos they would be of one frame, or none."""
_ENDINGS = ", ".join(suffix.lstrip(".") for suffix in sorted(IMAGE_SUFFIXES))


@dataclass(frozen=True)
class Video:
    """Frames one after another.

    Args:
        address: a file's path, a stream's address, or a camera's number.
    """

    address: str | int

    @property
    def name(self) -> str:
        """What it is called in messages and files: an address without the user's name and password."""
        if isinstance(self.address, int):
            return f"camera {self.address}"
        return re.sub(r"(?<=://)[^/@]*@", "", self.address) if is_address(self.address) else self.address

    @property
    def is_file(self) -> bool:
        return isinstance(self.address, str) and not is_address(self.address)


@dataclass(frozen=True)
class Sources:
    """All that is to be predicted on.

    Args:
        images: paths as they were written, each once, in their order.
        videos: after the images, in their order.
        passed_over: files of folders and patterns that are no such image.
    """

    images: list[str]
    videos: list[Video]
    passed_over: list[str] = field(default_factory=list)


def find_sources(words: Sequence[str]) -> Sources:
    """What the words of a command line name.

    Args:
        words: image files, videos, folders of images, patterns such as `photos/*.jpg`, numbers of cameras, addresses of
            streams such as `rtsp://…`. The images of a folder and the files of a pattern are in natural order: 2 before 10.

    Raises:
        UserError: there is no such file, no image in a folder, or a file is a still image of a format that is not read.
    """
    images: dict[str, None] = {}
    videos: dict[Video, None] = {}
    passed_over: dict[str, None] = {}
    for word in words:
        if word.isascii() and word.isdecimal():
            videos[Video(int(word))] = None
        elif is_address(word):
            videos[Video(word)] = None
        elif Path(word).is_dir():
            found, others = _folder(word)
            images |= dict.fromkeys(found)
            passed_over |= dict.fromkeys(others)
        else:
            for file in _files(word):
                if file.lower().endswith(IMAGE_SUFFIXES):
                    images[file] = None
                elif not _is_still(file):
                    videos[Video(file)] = None
                elif file != word:
                    passed_over[file] = None
                else:
                    raise UserError(f"{file}: images of this format are not read: save it as {_ENDINGS}")
    if not images and not videos:
        raise UserError(f"{words[0]}: no image that is read ({_ENDINGS}), and no video")
    return Sources(list(images), list(videos), list(passed_over))


def is_address(word: str) -> bool:
    """Whether it is a stream's, such as `rtsp://camera/1`."""
    return re.match(r"[a-z][a-z0-9+.-]*://", word, re.IGNORECASE) is not None


def _folder(folder: str) -> tuple[list[str], list[str]]:
    """The images of a folder, and its other files but for hidden ones."""
    files = sorted((str(file) for file in Path(folder).iterdir() if not file.is_dir()), key=_natural)
    images = [file for file in files if file.lower().endswith(IMAGE_SUFFIXES)]
    if not images:
        raise UserError(f"{folder}: no image in this folder ({_ENDINGS}): give files, or a pattern such as '{folder}/**/*'")
    return images, [file for file in files if file not in set(images) and not Path(file).name.startswith(".")]


def _files(word: str) -> Sequence[str]:
    if Path(word).exists():
        return [word]
    files = [file for file in glob.glob(word, recursive=True) if Path(file).is_file()]
    if not files:
        raise UserError(f"{word}: no such file: give images, folders, patterns, videos, a camera's number or an address")
    return sorted(files, key=_natural)


def _is_still(file: str) -> bool:
    """Whether a file is a still image by its name; of the format that has moving ones too, by what is in it."""
    if not file.lower().endswith(".gif"):
        return file.lower().endswith(_STILL_SUFFIXES)
    from PIL import Image

    try:
        with Image.open(file) as header:
            return not getattr(header, "is_animated", False)
    except (OSError, ValueError, SyntaxError):
        return True


def _natural(text: str) -> list[tuple[int, str]]:
    """Numbers in a text count as numbers."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", text.lower())] + [(0, text)]
