"""What tests of the host decoder share: pictures in every encoding, and Pillow's whole decode of them."""

import io
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from alexnet.pipeline.host.pool import DTYPES, JpegPool, StoredPlanes
from alexnet.shards.planes import planes_bytes
from alexnet.shards.tar import TarWriter

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

ENCODINGS: dict[str, dict[str, Any]] = {
    "4:2:0": {"subsampling": "4:2:0"},
    "4:2:2": {"subsampling": "4:2:2"},
    "4:4:4": {"subsampling": "4:4:4"},
    "grey": {},
    "RGB": {"keep_rgb": True},
    "progressive": {"subsampling": "4:2:0", "progressive": True},
    "progressive 4:4:4": {"subsampling": "4:4:4", "progressive": True},
    "restart markers": {"subsampling": "4:2:0", "restart_marker_rows": 1},
    "optimised": {"subsampling": "4:2:0", "optimize": True},
}


def photograph(seed: int, width: int = 256, height: int = 256, encoding: str = "4:2:0", quality: int = 90) -> bytes:
    """Return a JPEG of smooth colours under noise; the same for the same arguments."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    noisy = smooth + rng.integers(-12, 13, smooth.shape)
    image = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
    return encoded(image.convert("L") if encoding == "grey" else image, quality=quality, **ENCODINGS[encoding])


def encoded(image: Image.Image, file_format: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def pixels_of(jpeg: bytes) -> Pixels:
    """Decode all of a picture with Pillow: uint8 (height, width, 3)."""
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))


def window_of(pixels: Pixels, yx: npt.NDArray[np.int32], crop_px: int, mirror: bool) -> Pixels:
    y, x = yx.tolist()
    window = pixels[y : y + crop_px, x : x + crop_px]
    return window[:, ::-1] if mirror else window


def all_places(height: int, width: int, crop_px: int) -> npt.NDArray[np.int32]:
    """Return every top left corner that a window can have: int32 (n, 2)."""
    ys, xs = np.indices((height - crop_px + 1, width - crop_px + 1))
    return np.stack([ys.ravel(), xs.ravel()], axis=1).astype(np.int32)


def some_draws(n: int, seed: int = 0) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_], Floats, Floats]:
    """Return places of windows, mirrors, means and a scale, as a batch of n images of 256 px has them."""
    rng = np.random.default_rng(seed)
    places = rng.integers(0, 33, (n, 2)).astype(np.int32)
    means = rng.normal(110, 40, (n, 3)).astype(np.float32)
    return places, rng.integers(0, 2, n).astype(np.bool_), means, np.array([0.017, 1.0, -3.3], np.float32)


def decoded(
    pool: JpegPool,
    jpegs: list[bytes],
    kind: str = "uint8",
    *,
    size: tuple[int, int] = (256, 256),
    crop_px: int = 224,
    planar: bool = False,
    **given: Any,
) -> tuple[npt.NDArray[Any], dict[int, str]]:
    """Decode a batch: where nothing else is given, the centre of every picture, not mirrored. Return it and errors."""
    n = len(jpegs)
    arguments: dict[str, Any] = {
        "crop_yx": np.full((n, 2), [(side - crop_px) // 2 for side in size], np.int32),
        "mirror": np.zeros(n, np.bool_),
        "mean": np.full((n, 3), 100, np.float32),
        "scale": np.full(3, 0.5, np.float32),
        "out": np.full((n, 3, crop_px, crop_px) if planar else (n, crop_px, crop_px, 3), 77, DTYPES[kind]),
        **given,
    }
    return arguments["out"], pool.decode(jpegs, size=size, planar=planar, **arguments)


def without_segments(jpeg: bytes, marker: int) -> bytes:
    """Return a JPEG's bytes without the header segments of one marker."""
    return edited(jpeg, lambda found, segment: b"" if found == marker else segment)


def edited(jpeg: bytes, edit: Callable[[int, bytes], bytes]) -> bytes:
    """Return a JPEG's bytes with each segment before the first scan replaced by `edit(marker, segment)`."""
    result, place = jpeg[:2], 2
    while jpeg[place + 1] != 0xDA:
        end = place + 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big")
        result += edit(jpeg[place + 1], jpeg[place:end])
        place = end
    return result + jpeg[place:]


def claiming(jpeg: bytes, width: int, height: int) -> bytes:
    """Return a JPEG whose header claims another size."""
    size = height.to_bytes(2, "big") + width.to_bytes(2, "big")

    def edit(marker: int, segment: bytes) -> bytes:
        return segment[:5] + size + segment[9:] if marker in (0xC0, 0xC2) else segment

    return edited(jpeg, edit)


def scans_of(jpeg: bytes) -> list[int]:
    """Return where each scan of a progressive JPEG begins."""
    return [i for i in range(len(jpeg) - 1) if jpeg[i : i + 2] == b"\xff\xda"]


@contextmanager
def stored_planes(jpegs: Sequence[bytes], size: tuple[int, int]) -> Iterator[StoredPlanes]:
    """Store the planes of JPEGs as `in_tar` does."""
    planes = np.empty((len(jpegs), planes_bytes(*size)), np.uint8)
    with JpegPool(1) as pool:
        assert pool.decode_planes(jpegs, size=size, out=planes) == {}
    with in_tar(planes) as stored:
        yield stored


@contextmanager
def in_tar(planes: npt.NDArray[np.uint8]) -> Iterator[StoredPlanes]:
    """Write planes into a tar, whose keys begin with 87654320, 87654321, ..."""
    with tempfile.TemporaryFile() as file:
        tar, keys = TarWriter(file, "yuv"), np.arange(len(planes), dtype=np.int32) + 87_654_320
        offsets = [
            tar.add(f"{key:08d}_x", key, 0, row.tobytes()).offset
            for key, row in zip(keys.tolist(), planes, strict=True)
        ]
        file.flush()
        yield StoredPlanes(np.full(len(planes), file.fileno(), np.int32), np.array(offsets, np.int64), keys)
