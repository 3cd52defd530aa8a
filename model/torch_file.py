"""PyTorch's own files of tensors (`.pth`), of which no more memory is taken than the file itself has.

Two layouts: a zip, since 2020 (`NAME/data.pkl`, and `NAME/data/KEY` for each storage), and before that pickles and then
storages, one after another. The storages are read when the pickle is over, those alone that are wanted, and must have
the bytes that it said.
"""

import io
import zipfile
from typing import Any, BinaryIO

import torch
from torch import Tensor

from alexnet.model.torch_pickle import Machine, Stored

MOST_WORDS = 12_000_000
"""Bytes of all that is not tensors; what they say may take 30 times as many. Of 1,000 tensors it is 0.2 MB."""
_CHUNK = 1 << 20
_LEGACY = 0x1950A86A20F9469CFC6C  # what files of before 2020 begin with


class TorchFile:
    """A file that is open for reading. `state`: what was saved, a `Stored` for each tensor.

    Raises ValueError, or whatever a damaged zip or pickle makes its reader raise.
    """

    def __init__(self, file: io.FileIO, size: int) -> None:
        self._size = size
        opened = _Careful(file)
        is_zip = opened.peek(2).startswith(b"PK")
        self._storages: _Zip | _Sequence = _Zip(opened) if is_zip else _Sequence(opened)
        self.state = self._storages.state

    def tensors(self, wanted: dict[str, Stored]) -> dict[str, Tensor]:
        """Read tensors; those that share a storage do so again."""
        storages = {stored.key: stored for stored in wanted.values()}
        if (total := sum(stored.nbytes() for stored in storages.values())) > self._size:
            raise ValueError(f"its tensors are said to have {total:,} bytes, more than the file")
        raw = self._storages.read(storages)
        return {name: stored.within(raw[stored.key], self._size) for name, stored in wanted.items()}


class _Careful(io.BufferedReader):
    """A file of which no part is read at once that is larger than words may be."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MOST_WORDS:
            raise ValueError(f"a part of it is said to have {size:,} bytes, where at most {MOST_WORDS:,} can be right")
        return super().read(size)


class _Zip:
    """What PyTorch has written since 2020."""

    def __init__(self, file: _Careful) -> None:
        self._zip = zipfile.ZipFile(file)
        names = [name for name in self._zip.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(names) != 1:
            raise ValueError(f"holds {len(names)} files data.pkl")
        self._root = names[0].removesuffix("data.pkl")
        self._swapped = f"{self._root}byteorder" in self._zip.namelist() and self._record("byteorder") == b"big"
        self.state = Machine().run(io.BytesIO(self._record("data.pkl")))

    def read(self, storages: dict[str, Stored]) -> dict[str, Tensor]:
        """Return the bytes of storages, by key."""
        return {key: self._storage(stored) for key, stored in storages.items()}

    def _storage(self, stored: Stored) -> Tensor:
        with self._open(f"data/{stored.key}", stored.nbytes()) as record:
            raw = _read_raw(record, stored.nbytes())  # at its end the checksum is compared
        if self._swapped:
            width = stored.dtype.itemsize // (2 if stored.dtype.is_complex else 1)
            raw.numpy().view(f"u{width}").byteswap(inplace=True)
        return raw

    def _record(self, name: str) -> bytes:
        size = self._zip.getinfo(self._root + name).file_size
        if size > MOST_WORDS:
            raise ValueError(f"{name} is said to have {size:,} bytes, where at most {MOST_WORDS:,} can be right")
        with self._open(name, size) as record:
            content: bytes = record.read()
        return content

    def _open(self, name: str, size: int) -> Any:
        info = self._zip.getinfo(self._root + name)
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != size:
            raise ValueError(f"{name} is compressed, or has not the {size:,} bytes that its tensors need")
        if info.CRC == 0:  # PyTorch can be told to leave checksums out
            info.CRC = None  # type: ignore[assignment]  # as `zipfile` knows it
        return self._zip.open(info)


class _Sequence:
    """What PyTorch wrote before 2020: four pickles, the storages' keys, and each one's number of values and bytes."""

    def __init__(self, file: _Careful) -> None:
        self._file, machine = file, Machine()
        words = io.BytesIO(file.read(MOST_WORDS))
        if Machine().run(words) != _LEGACY:
            raise ValueError("is no file of PyTorch's")
        Machine().run(words)  # the version
        Machine().run(words)  # the machine that wrote it
        self.state = machine.run(words)
        self._all, self._keys = machine.storages, Machine().run(words)
        self._begin = words.tell()

    def read(self, storages: dict[str, Stored]) -> dict[str, Tensor]:
        """Return the bytes of storages, by key."""
        read: dict[str, Tensor] = {}
        self._file.seek(self._begin)
        for key in self._keys:
            stored = self._all[key]
            if int.from_bytes(self._file.read(8), "little") != stored.numel:
                raise ValueError(f"storage {key} has not the {stored.numel:,} values that its tensors need")
            if key in storages:
                read[key] = _read_raw(self._file, stored.nbytes())
            else:
                self._file.seek(stored.nbytes(), io.SEEK_CUR)
        return read


def _read_raw(file: BinaryIO, nbytes: int) -> Tensor:
    """Read so many bytes: uint8 (nbytes,). Raises ValueError if there are fewer."""
    raw = torch.empty(nbytes, dtype=torch.uint8)
    view, done = memoryview(raw.numpy()), 0  # type: ignore[arg-type]  # NumPy's stubs for Python 3.11
    while done < nbytes:
        part = file.read(min(_CHUNK, nbytes - done))
        if not part:
            raise ValueError("ends within a tensor")
        view[done : done + len(part)] = part
        done += len(part)
    return raw
