"""Damage files a bit at a time, and see that whoever reads them finds it."""

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from alexnet.shards.errors import InputError


def outcomes(file: Path, bits: Iterable[int], read: Callable[[], object]) -> Counter[str]:
    """Flip each of these bits alone; count how often reading `refused`, gave the `same` as before, or something `else`.

    A refusal is one line. In the end the file is as it was.
    """
    content, sound, counted = file.read_bytes(), read(), Counter[str]()
    for bit in bits:
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        try:
            counted["same" if read() == sound else "else"] += 1
        except InputError as error:
            counted["else" if "\n" in str(error) else "refused"] += 1
    file.write_bytes(content)
    assert read() == sound
    return counted
