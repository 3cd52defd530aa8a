"""Broken pictures: an error for the row they are in, the others unharmed, nothing lost or lent; before DALI, too."""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from alexnet.pipeline import ImageStream, StreamSettings
from alexnet.pipeline.host import DecodeError, JpegPool, available, decode_rows
from alexnet.shards.errors import SampleError
from alexnet.shards.planes import planes_bytes
from tests.unit.pipeline.photographs import (
    claiming,
    decoded,
    edited,
    encoded,
    photograph,
    pixels_of,
    without_segments,
)
from tests.unit.pipeline.streams import AMONG_THE_CODES, damaged, others_are_unharmed, stream_of

pytestmark = pytest.mark.skipif(available() is not None, reason=str(available()))

GOOD = photograph(0)
DQT, DHT, SOF0, SOS = 0xDB, 0xC4, 0xC0, 0xDA


def overwritten(marker: int, place: int, value: bytes) -> bytes:
    """Change bytes of every header segment of one kind."""

    def edit(found: int, segment: bytes) -> bytes:
        return segment[:place] + value + segment[place + len(value) :] if found == marker else segment

    return edited(GOOD, edit)


def in_the_middle(value: bytes) -> bytes:
    half = len(GOOD) // 2
    return GOOD[:half] + value + GOOD[half + len(value) :]


HARD: dict[str, tuple[bytes, str]] = {
    "no bytes": (b"", "Empty input file"),
    "one byte": (b"\xff", r"Not a JPEG file|Premature end"),
    "text": (b"<html>404</html>", "Not a JPEG file: starts with 0x3c 0x68"),
    "zeros": (bytes(5000), "Not a JPEG file"),
    "PNG": (encoded(Image.new("RGB", (256, 256)), "PNG"), "Not a JPEG file: starts with 0x89 0x50"),
    "CMYK": (encoded(Image.new("CMYK", (256, 256))), "has the colour space CMYK, not YCbCr, RGB or GRAYSCALE"),
    "wrong size": (photograph(0, 255, 256), "is 255 pixels wide and 256 high, not 256 and 256"),
    "claims a larger size": (claiming(GOOD, 65_500, 65_500), "is 65500 pixels wide and 65500 high"),
    "claims to be progressive and larger": (
        claiming(photograph(0, encoding="progressive"), 65_500, 65_500),
        "is 65500 pixels wide",
    ),
    "header alone": (GOOD[: GOOD.index(b"\xff\xda")], r"Premature end of JPEG file|JPEG datastream contains no image"),
    "cut in the header": (GOOD[:300], "Premature end of JPEG file"),
    "cut in half": (GOOD[: len(GOOD) // 2], "cut short"),
    "cut below the window": (GOOD[: len(GOOD) - 300], "cut short"),
    "without its last byte": (GOOD[:-1], "cut short"),
    "half of it, closed": (GOOD[: len(GOOD) // 2] + b"\xff\xd9", "Premature end of JPEG file|Corrupt JPEG data"),
    "half of it gone": (GOOD[: len(GOOD) // 4] + GOOD[-len(GOOD) // 4 :], "Corrupt JPEG data|Premature end"),
    "more codes than there can be": (overwritten(DHT, 5, b"\xff" * 16), "Bogus Huffman table definition"),
    "codes that overlap": (overwritten(DHT, 5, b"\x03\x03"), "Bogus Huffman table definition|Corrupt JPEG data"),
    "a table of number 9": (overwritten(DHT, 4, b"\x09"), "Bogus DHT index 9"),
    "no quantisation table": (without_segments(GOOD, DQT), "Quantization table 0x00 was not defined"),
    "12 bits": (overwritten(SOF0, 4, b"\x0c"), "Unsupported JPEG data precision 12"),
    "sampling 0": (overwritten(SOF0, 11, b"\x00"), "Bogus sampling factors"),
    "lossless": (GOOD.replace(b"\xff\xc0", b"\xff\xc3"), r"Unsupported JPEG process: SOF type 0xc3|Invalid"),
    "marker inside": (in_the_middle(b"\xff\xc4\x00\x02"), "Corrupt JPEG data|Premature end|Bogus"),
    "no width": (claiming(GOOD, 0, 256), "Empty JPEG image"),
}


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("what", HARD)
def test_an_error_names_the_row_and_the_others_are_unharmed(what: str, threads: int) -> None:
    bad, message = HARD[what]
    jpegs = [photograph(i) for i in range(5)]
    with JpegPool(threads) as decoder:
        expected, none = decoded(decoder, jpegs)
        assert none == {}
        out, errors = decoded(decoder, [*jpegs[:2], bad, *jpegs[2:], bad])
        assert list(errors) == [2, 6]
        for reason in errors.values():
            assert re.search(message, reason), reason
        assert np.array_equal(np.delete(out, (2, 6), axis=0), expected)
        assert not out[[2, 6]].any()
        assert np.array_equal(decoded(decoder, jpegs)[0], expected)


@pytest.mark.parametrize("what", HARD)
def test_planes_and_single_pictures_refuse_the_same(what: str) -> None:
    bad, message = HARD[what]
    out = np.full((3, planes_bytes(256, 256)), 7, np.uint8)
    with JpegPool(2) as decoder:
        (error,) = decoder.decode_planes([GOOD, bad, GOOD], size=(256, 256), out=out).items()
    assert error[0] == 1
    assert re.search(message, error[1])
    assert not out[1].any()
    assert np.array_equal(out[0], out[2])
    if not re.match("wrong size|claims", what):
        with pytest.raises(DecodeError):
            decode_rows(bad, y=0, x=0, shape=(200, 200, 3))


def test_planes_of_other_sampling_are_refused() -> None:
    jpegs = [photograph(0, encoding=name) for name in ("4:2:2", "4:4:4", "RGB", "4:2:0")]
    with JpegPool(1) as decoder:
        errors = decoder.decode_planes(jpegs, size=(256, 256), out=np.empty((4, 98_304), np.uint8))
    assert errors == dict.fromkeys(range(3), "is not stored as 4:2:0")


def test_every_cut_is_an_error() -> None:
    with JpegPool(2) as decoder:
        _, errors = decoded(decoder, [GOOD[: len(GOOD) * i // 100] for i in range(100)])
    assert list(errors) == list(range(100))


def test_a_picture_lends_nothing_to_the_next() -> None:
    """A decompressor that is used again still has the tables of the picture before."""
    rough = photograph(1, quality=10)
    lacking = without_segments(rough, DQT)
    standard = without_segments(rough, DHT)  # the standard tables are meant, as in motion JPEG
    tuned = photograph(2, encoding="optimised")
    with JpegPool(1) as decoder:
        out, errors = decoded(decoder, [GOOD, lacking, tuned, standard])
    assert errors == {1: "Quantization table 0x00 was not defined"}
    assert np.array_equal(out[3], pixels_of(standard)[16:240, 16:240])


def memory_bytes() -> int:
    """Return the memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_nothing_is_lost_over_thousands_of_errors() -> None:
    bad = [data for data, _ in HARD.values()]
    with JpegPool(2) as decoder:

        def rounds(n: int) -> None:
            for _ in range(n):
                assert len(decoded(decoder, bad)[1]) == len(bad)
                for data in bad:
                    with pytest.raises(DecodeError):
                        decode_rows(data, y=0, x=0, shape=(300, 300, 3))

        def texts(count: int) -> None:
            for _ in range(count):
                assert len(decoded(decoder, [b""] * 20_000, size=(9, 9), crop_px=1)[1]) == 20_000

        # 5,000 decodes: a leak of 1 kB each would be 7.5 MB. 800,000 texts of 32 bytes; a round's take some MB a while.
        for repeat, first, then, limit in ((rounds, 20, 100, 4_000_000), (texts, 3, 40, 10_000_000)):
            repeat(first)
            before = memory_bytes()
            repeat(then)
            assert memory_bytes() - before < limit


def test_random_damage_never_harms_the_neighbours() -> None:
    rng = np.random.default_rng(11)
    jpegs = []
    for _ in range(200):
        damaged = np.frombuffer(GOOD, np.uint8).copy()
        places = rng.integers(2, len(damaged) if rng.integers(2) else 700, rng.integers(1, 9))
        damaged[places] = rng.integers(0, 256, len(places))
        jpegs += [damaged.tobytes(), GOOD]
    with JpegPool(2) as decoder:
        out, errors = decoded(decoder, jpegs)
        again, same = decoded(decoder, jpegs)
    assert errors == same
    assert out.tobytes() == again.tobytes()
    assert all(row % 2 == 0 for row in errors)
    assert np.array_equal(out[1::2], np.broadcast_to(out[1], out[1::2].shape))
    undamaged = set(range(0, 400, 2)) - set(errors)
    for row in undamaged:  # what no error was found in is what Pillow makes of it
        assert np.array_equal(out[row], pixels_of(jpegs[row])[16:240, 16:240])


def test_no_memory_is_taken_for_what_a_header_claims() -> None:
    bomb = claiming(photograph(0, encoding="progressive"), 65_500, 65_500)
    before = memory_bytes()
    with JpegPool(2) as decoder:
        decoded(decoder, [bomb] * 8)
    with pytest.raises(DecodeError):
        decode_rows(bomb, y=0, x=0, shape=(8, 8, 3))
    assert memory_bytes() - before < 50_000_000  # its coefficients alone would be 25 GB


IN_THE_CODES = {"cut in half", "cut below the window", "without its last byte", "half of it, closed", "half of it gone"}
IN_A_TABLE = {"more codes than there can be", "codes that overlap", "a table of number 9", "no quantisation table"}
FOR_DALI = {*IN_THE_CODES, *IN_A_TABLE, "marker inside"}  # which DALI reports as it should


def as_array(jpeg: bytes) -> npt.NDArray[np.uint8]:
    return np.frombuffer(jpeg, np.uint8)


@pytest.mark.dali
def test_damaged_headers_do_not_pass_to_dali_and_long_ones_do() -> None:
    from alexnet.pipeline.dali import HeaderCheck

    passed = {what for what, (jpeg, _) in HARD.items() if not HeaderCheck(256).damage(as_array(jpeg))}
    assert passed == FOR_DALI
    comment = b"\xff\xfe\x40\x00" + bytes(0x3FFE)
    assert HeaderCheck(256).damage(as_array(GOOD[:2] + comment + GOOD[2:])) == ""
    assert HeaderCheck(256).damage(as_array(claiming(photograph(1), 255, 256))) == (
        "cannot be decoded: is 255 pixels wide and 256 high, not 256 and 256"
    )


# Bytes of the bundled pictures: the first ones, the frame's marker, its precision, and a table of codes, which DALI
# itself reports.
DAMAGE = {
    "start": (0, bytes(200)),
    "frame": (158, b"\x00\x00"),
    "precision": (162, b"\x34"),
    "table": (182, b"\xff" * 16),
}


@pytest.mark.parametrize("what", DAMAGE)
@pytest.mark.parametrize("decode", ["dali", "split=0.9"])
def test_a_damaged_image_in_a_large_batch_is_named_and_can_be_skipped(
    ci_100: Path, tmp_path: Path, decode: str, what: str
) -> None:
    """From 32 images on, DALI answers damaged headers with a segmentation fault."""
    root = damaged(ci_100, tmp_path / "set", 33, *DAMAGE[what])

    def stream(on_error: str) -> ImageStream:
        settings = StreamSettings(decode=decode, on_error=on_error)  # type: ignore[arg-type]
        return ImageStream(root / "train", batch_images=100, augment=False, threads=2, settings=settings)

    with stream("stop") as stopped, pytest.raises(SampleError, match=r"sample 33 \(.*\): cannot be decoded: ."):
        list(stopped)
    with stream("skip") as skipping:
        (batch,) = skipping
        assert len(batch[1]) == 99
        assert skipping.meter.skipped == 1


@pytest.mark.parametrize("decode", ["host", "dali"])
def test_damage_among_the_codes_harms_no_other_image(ci_100: Path, tmp_path: Path, decode: str) -> None:
    """DALI's CPU decoder forgives what libjpeg only warns of; its images' other parts are then what they are."""
    options: dict[str, Any] = {"augment": False, "batch_images": 100, "output": "uint8", "decode": decode}
    taken = {
        what
        for what, value in AMONG_THE_CODES.items()
        if others_are_unharmed(
            stream_of(ci_100, **options),
            stream_of(damaged(ci_100, tmp_path / what, 33, None, value), on_error="skip", **options),
            33,
        )
    }
    assert taken == (set() if decode == "host" else set(AMONG_THE_CODES))
