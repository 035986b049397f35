"""What is to be predicted on: image files, videos, cameras and streams, from what a user writes."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rpgmt.data.images import IMAGE_SUFFIXES
from rpgmt.errors import UserError


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
    """

    images: list[str]
    videos: list[Video]


def find_sources(words: Iterable[str]) -> Sources:
    """What the words of a command line name.

    Args:
        words: image files, videos, folders of images, patterns such as `photos/*.jpg`, numbers of cameras, addresses of
            streams such as `rtsp://…`. The images of a folder and the files of a pattern are in natural order: 2 before 10.

    Raises:
        UserError: there is no such file, or no image in a folder.
    """
    images: dict[str, None] = {}
    videos: dict[Video, None] = {}
    for word in words:
        if word.isascii() and word.isdecimal():
            videos[Video(int(word))] = None
        elif is_address(word):
            videos[Video(word)] = None
        else:
            for file in _files(word):
                if file.lower().endswith(IMAGE_SUFFIXES):
                    images[file] = None
                else:
                    videos[Video(file)] = None
    return Sources(list(images), list(videos))


def is_address(word: str) -> bool:
    """Whether it is a stream's, such as `rtsp://camera/1`."""
    return re.match(r"[a-z][a-z0-9+.-]*://", word, re.IGNORECASE) is not None


def _files(word: str) -> Sequence[str]:
    path = Path(word)
    if path.is_dir():
        files = [str(path / file.name) for file in path.iterdir() if file.name.lower().endswith(IMAGE_SUFFIXES)]
        if not files:
            endings = ", ".join(suffix.lstrip(".") for suffix in IMAGE_SUFFIXES)
            raise UserError(f"{word}: no image in this folder ({endings}): give files, or a pattern such as '{word}/**/*'")
        return sorted(files, key=_natural)
    if path.exists():
        return [word]
    files = [file for file in glob.glob(word, recursive=True) if Path(file).is_file()]
    if not files:
        raise UserError(f"{word}: no such file: give images, folders, patterns, videos, a camera's number or an address")
    return sorted(files, key=_natural)


def _natural(text: str) -> list[tuple[int, str]]:
    """Numbers in a text count as numbers."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", text.lower())] + [(0, text)]
