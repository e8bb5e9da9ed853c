"""What the imitated models make of their input: fal's usual picture answer, and the picture itself. Pure.

Decision: everything follows from the input alone, so that the same request gives the same picture, and an answer
carries the digest and the length of the body that arrived, so that a tester sees at once whether it arrived whole.
"""

from __future__ import annotations

import json
import struct
import zlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

SIZES: Final[Mapping[str, tuple[int, int]]] = MappingProxyType(
    {
        "square_hd": (1024, 1024),
        "square": (512, 512),
        "portrait_4_3": (768, 1024),
        "portrait_16_9": (576, 1024),
        "landscape_4_3": (1024, 768),
        "landscape_16_9": (1024, 576),
    }
)
PIXELS_MOST: Final = 2048


def read_input(body: bytes) -> dict[str, object]:
    """Return the JSON object in a body; empty for anything else, as not every model takes JSON."""
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def paint(inputs: Mapping[str, object], *, own_url: str, sha256: str, length: int) -> dict[str, object]:
    """Return the answer of a picture model: one image, whose URL works, and what is known of the input."""
    width, height = _size(inputs.get("image_size"))
    seed = _seed(inputs.get("seed"), sha256)
    image = {
        "url": f"{own_url}/storage/images/{width}x{height}-{seed}.png",
        "width": width,
        "height": height,
        "content_type": "image/png",
    }
    return {
        "images": [image],
        "timings": {"inference": 0.0},
        "seed": seed,
        "has_nsfw_concepts": [False],
        "prompt": inputs.get("prompt"),
        "sha256": sha256,
        "bytes": length,
    }


def _size(wanted: object) -> tuple[int, int]:
    if isinstance(wanted, dict):
        return _pixels(wanted.get("width")), _pixels(wanted.get("height"))
    return SIZES.get(wanted, SIZES["square_hd"]) if isinstance(wanted, str) else SIZES["square_hd"]


def _pixels(wanted: object) -> int:
    """Return a number of pixels out of what a caller wrote, 1 to 2048."""
    text = str(wanted)
    return max(1, min(PIXELS_MOST, int(text))) if text.isascii() and text.isdigit() else SIZES["square_hd"][0]


def _seed(wanted: object, sha256: str) -> int:
    return wanted if isinstance(wanted, int) and wanted >= 0 else int(sha256[:8], 16)


def png(width: int, height: int, *, seed: int) -> bytes:
    """Return a PNG of one colour that follows from the seed: one bit a pixel, a palette of two."""
    row = b"\x00" + b"\x00" * ((width + 7) // 8)
    colour = struct.pack(">I", seed * 2654435761 % 2**32)[:3]
    parts = (
        _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 3, 0, 0, 0)),
        _chunk(b"PLTE", colour + b"\xff\xff\xff"),
        _chunk(b"IDAT", zlib.compress(row * height)),
        _chunk(b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
