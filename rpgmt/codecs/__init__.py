"""Key points to heat maps and back."""

from __future__ import annotations

from typing import Any, Literal

from rpgmt.codecs.codec import Codec
from rpgmt.codecs.heatmap import Heatmap
from rpgmt.codecs.msra import Msra
from rpgmt.codecs.udp import Udp

CodecName = Literal["heatmap", "msra", "dark", "udp"]


def make_codec(name: CodecName, input_size: tuple[int, int], stride: int, sigma: float, *, logits: bool) -> Codec:
    """The codec of a network.

    Args:
        name: this library's own, `heatmap`, or that of a paper.
        input_size: (W, H) of the network's input in pixels.
        stride: pixels of the input for one cell of the maps.
        sigma: standard deviation of the Gaussian in cells.
        logits: whether `heatmap` decodes logits; the others decode maps of values alone.
    """
    width, height = input_size
    sizes: Any = {"input_size": input_size, "heatmap_size": (width // stride, height // stride), "sigma": sigma}
    if name == "heatmap":
        return Heatmap(**sizes, maps="logits" if logits else "values")
    return Udp(**sizes) if name == "udp" else Msra(**sizes, dark=name == "dark")


def codec_name(codec: Codec) -> CodecName:
    """The name by which `make_codec` makes a codec of this kind."""
    if isinstance(codec, Msra):
        return "dark" if codec.dark else "msra"
    return "udp" if isinstance(codec, Udp) else "heatmap"
