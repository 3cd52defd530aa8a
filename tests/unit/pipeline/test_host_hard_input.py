"""Broken pictures: an error for the row they are in, the others unharmed, nothing lost, nothing lent."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet.pipeline.host import DecodeError, Decoder, available, decode_rows, planes_bytes
from tests.unit.pipeline.photographs import (
    claiming,
    decoded,
    edited,
    encoded,
    photograph,
    pixels_of,
    without_segments,
)

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
    with Decoder(threads) as decoder:
        expected, none = decoded(decoder, jpegs)
        assert none == []
        out, errors = decoded(decoder, [*jpegs[:2], bad, *jpegs[2:], bad])
        assert [row for row, _ in errors] == [2, 6]
        for _, reason in errors:
            assert re.search(message, reason), reason
        assert np.array_equal(np.delete(out, (2, 6), axis=0), expected)
        assert not out[[2, 6]].any()
        assert np.array_equal(decoded(decoder, jpegs)[0], expected)


@pytest.mark.parametrize("what", HARD)
def test_planes_and_single_pictures_refuse_the_same(what: str) -> None:
    bad, message = HARD[what]
    out = np.full((3, planes_bytes((256, 256))), 7, np.uint8)
    with Decoder(2) as decoder:
        (error,) = decoder.decode_planes([GOOD, bad, GOOD], size=(256, 256), out=out)
    assert error[0] == 1
    assert re.search(message, error[1])
    assert not out[1].any()
    assert np.array_equal(out[0], out[2])
    if not re.match("wrong size|claims", what):
        with pytest.raises(DecodeError):
            decode_rows(bad, y=0, x=0, height=200, width=200)


def test_planes_of_other_sampling_are_refused() -> None:
    jpegs = [photograph(0, encoding=name) for name in ("4:2:2", "4:4:4", "RGB", "4:2:0")]
    with Decoder(1) as decoder:
        errors = decoder.decode_planes(jpegs, size=(256, 256), out=np.empty((4, 98_304), np.uint8))
    assert errors == [(row, "is not stored as 4:2:0") for row in range(3)]


def test_every_cut_is_an_error() -> None:
    with Decoder(2) as decoder:
        _, errors = decoded(decoder, [GOOD[: len(GOOD) * i // 100] for i in range(100)])
    assert [row for row, _ in errors] == list(range(100))


def test_a_picture_lends_nothing_to_the_next() -> None:
    """A decompressor that is used again still has the tables of the picture before."""
    rough = photograph(1, quality=10)
    lacking = without_segments(rough, DQT)
    standard = without_segments(rough, DHT)  # the standard tables are meant, as in motion JPEG
    tuned = photograph(2, encoding="optimised")
    with Decoder(1) as decoder:
        out, errors = decoded(decoder, [GOOD, lacking, tuned, standard])
    assert errors == [(1, "Quantization table 0x00 was not defined")]
    assert np.array_equal(out[3], pixels_of(standard)[16:240, 16:240])


def memory_bytes() -> int:
    """Return the memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_nothing_is_lost_over_thousands_of_errors() -> None:
    bad = [data for data, _ in HARD.values()]
    with Decoder(2) as decoder:

        def rounds(n: int) -> None:
            for _ in range(n):
                _, errors = decoded(decoder, bad)
                assert len(errors) == len(bad)
                for data in bad:
                    with pytest.raises(DecodeError):
                        decode_rows(data, y=0, x=0, height=300, width=300)

        rounds(20)
        before = memory_bytes()
        rounds(100)  # 5,000 decodes; a leak of 1 kB each would be 7.5 MB
        assert memory_bytes() - before < 4_000_000


def test_messages_are_not_kept() -> None:
    n = 20_000
    with Decoder(2) as decoder:

        def rounds(count: int) -> None:
            for _ in range(count):
                assert len(decoded(decoder, [b""] * n, size=(9, 9), crop_px=1)[1]) == n

        rounds(3)
        before = memory_bytes()
        rounds(40)  # 800,000 texts of 32 bytes; a round's list and tuples take some MB for a while
        assert memory_bytes() - before < 10_000_000


def test_random_damage_never_harms_the_neighbours() -> None:
    rng = np.random.default_rng(11)
    jpegs = []
    for _ in range(200):
        damaged = np.frombuffer(GOOD, np.uint8).copy()
        places = rng.integers(2, len(damaged) if rng.integers(2) else 700, rng.integers(1, 9))
        damaged[places] = rng.integers(0, 256, len(places))
        jpegs += [damaged.tobytes(), GOOD]
    with Decoder(2) as decoder:
        out, errors = decoded(decoder, jpegs)
        again, same = decoded(decoder, jpegs)
    assert errors == same
    assert out.tobytes() == again.tobytes()
    assert all(row % 2 == 0 for row, _ in errors)
    assert np.array_equal(out[1::2], np.broadcast_to(out[1], out[1::2].shape))
    undamaged = set(range(0, 400, 2)) - {row for row, _ in errors}
    for row in undamaged:  # what no error was found in is what Pillow makes of it
        assert np.array_equal(out[row], pixels_of(jpegs[row])[16:240, 16:240])


def test_no_memory_is_taken_for_what_a_header_claims() -> None:
    bomb = claiming(photograph(0, encoding="progressive"), 65_500, 65_500)
    before = memory_bytes()
    with Decoder(2) as decoder:
        decoded(decoder, [bomb] * 8)
    with pytest.raises(DecodeError):
        decode_rows(bomb, y=0, x=0, height=8, width=8)
    assert memory_bytes() - before < 50_000_000  # its coefficients alone would be 25 GB
