"""Files of weights: tensors by name, and a few words about them. Nothing is ever unpickled but tensors.

Two kinds. safetensors holds tensors and text and cannot hold anything else. PyTorch's own (`.pth`), which torchvision
uses, is a pickle: PyTorch's restricted reader makes tensors of it, with memory and time bounded around it. Neither kind
takes more memory than twice the file, and 0.5 GB.
What is exported has a digest in it, or a zip's checksums, so that damage is found.
"""

import hashlib
import io
import json
import os
import pickletools
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from alexnet.shards.errors import InputError
from alexnet.shards.files import as_typed, bounded_memory, open_regular, replacing

_MOST_HEADER_BYTES = 12_000_000
"""Of safetensors. Of 1,000 tensors the header has 0.1 MB."""
_BESIDE_BYTES = 300_000_000
"""What reading a pickle may take beside twice the file, bytes: PyTorch's reader is lenient and calls what it knows."""
_ABOUT = "alexnet"  # the key of our own words among a file's metadata
_DIGEST = "alexnet-sha256"  # of these words and the tensors
_OTHER_DIGEST = (
    "was changed after it was exported, or is damaged; export it again or, where the change was wanted, take "
    f"{_DIGEST} out"
)
_NAMES_BYTES = 100_000  # of a header: more than the names and shapes of a network's tensors take
_UNDER = ("state_dict", "model_state_dict", "model_state", "model", "network", "net", "module")
"""What trainers call the state dict in a file that has more of a run's state: the epoch, the optimizer's."""
_PICKLES_BEFORE_2020 = 5  # a file of that time begins with so many, one after the other
_MOST_VALUES = 1_000_000  # of a tuple
_MOST_PARTS = 100_000  # of a zip
_MOST_PICKLED = 4_000_000  # bytes of a pickle: 27,000 tensors
_PICKLES = (b"PK", b"\x80")  # a zip with a pickle in it, and a bare one as PyTorch wrote until 2020


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Hold tensors by name, and what the file says about them: plain values, empty where it says nothing."""

    tensors: dict[str, Tensor]
    about: dict[str, Any] = field(default_factory=dict)


def read_weights(file: Path) -> Weights:
    """Read a file of either kind, on the CPU. What it is, is read from its bytes, never from its name.

    Raises InputError for anything else, and for a pickle that holds more than tensors.
    """
    try:
        opened = io.FileIO(open_regular(file))
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror or error})") from None
    with opened:
        begins = opened.read(9)  # of safetensors: the length of a header, in 8 bytes that can be any, and its brace
        if begins.startswith(_PICKLES) and begins[4:] != b"\0\0\0\0{":
            opened.seek(0)
            return _read_pickle(file, opened)
        if (header_bytes := int.from_bytes(begins[:8], "little")) > _MOST_HEADER_BYTES:
            raise InputError(
                f"{file}: cannot be read as safetensors (its header is said to have {header_bytes:,} bytes, where at "
                f"most {_MOST_HEADER_BYTES:,} can be right); give safetensors, or a state dict of PyTorch's"
            )
    return _read_safetensors(file)


def write_safetensors(file: Path, weights: Weights) -> None:
    """Write a safetensors file; what was there stays until it is whole."""
    about = json.dumps(weights.about)
    words = {"format": "pt", _ABOUT: about, _DIGEST: digest(weights.tensors, about)}
    if (size := len(json.dumps(words))) > _MOST_HEADER_BYTES - _NAMES_BYTES:
        raise InputError(f"{file}: its classes and settings take {size:,} bytes, which no reader here takes")
    with replacing(file) as partial:
        save_file(weights.tensors, partial, metadata=words)


def write_state_dict(file: Path, weights: Weights) -> None:
    """Write what `torch.load(file, weights_only=True)` reads and `load_state_dict` takes.

    `about` travels where state dicts keep their versions: `state_dict._metadata["alexnet"]`.
    """
    state: OrderedDict[str, Tensor] = OrderedDict(weights.tensors)
    words = {_ABOUT: weights.about, _DIGEST: digest(weights.tensors, json.dumps(weights.about))}
    state._metadata = OrderedDict({"": {"version": 1}, **words})  # type: ignore[attr-defined]
    with replacing(file) as partial:
        torch.save(state, partial)


@contextmanager
def in_utf8(path: Path) -> Iterator[Path]:
    """Give a path to a file or folder that safetensors opens: of names, it takes UTF-8 alone."""
    try:
        os.fsencode(path).decode()
    except UnicodeDecodeError:
        opened = os.open(path, os.O_RDONLY)
        try:
            yield Path(f"/proc/self/fd/{opened}")
        finally:
            os.close(opened)
    else:
        yield path


def digest(tensors: Mapping[str, Tensor], about: str = "") -> str:
    """Name values: sha256 over words, and names, types, shapes and bytes of tensors in the order of the names."""
    summed = hashlib.sha256(about.encode())
    for name, tensor in sorted(tensors.items()):
        summed.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        summed.update(bytes_of(tensor))
    return summed.hexdigest()


def bytes_of(tensor: Tensor) -> memoryview:
    """Return a tensor's values as they lie in a file, without a copy where they are contiguous."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data


def misfit(stored: Mapping[str, torch.Size], wanted: Mapping[str, torch.Size]) -> str:
    """Say which tensor that a network wants is missing, or has another shape; '' if all fit."""
    for name, shape in wanted.items():
        if stored.get(name) != shape:
            if name not in stored:
                return f"has no {name}"
            return f"{name} is {tuple(stored[name])}, this network's is {tuple(shape)}"
    return ""


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """Return the shapes of tensors by name."""
    return {name: tensor.shape for name, tensor in tensors.items()}


def _read_safetensors(file: Path) -> Weights:
    try:
        with in_utf8(file) as path, safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a dictionary)
        text = metadata.get(_ABOUT, "{}")
        if metadata.get(_DIGEST) not in (None, digest(tensors, text)):
            raise InputError(f"{file}: {_OTHER_DIGEST} of its metadata")
        about = as_typed(text, dict[str, Any])
    except InputError:
        raise
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read as safetensors ({error})") from None
    return Weights(tensors=tensors, about=about)


def _read_pickle(file: Path, opened: io.FileIO) -> Weights:
    try:
        size = os.fstat(opened.fileno()).st_size
        with warnings.catch_warnings(), bounded_memory(2 * size + _BESIDE_BYTES):
            warnings.simplefilter("ignore")  # of the pickle's protocol; if that is too new, an error says so
            buffered = io.BufferedReader(opened)
            _check_zip(buffered) if zipfile.is_zipfile(buffered) else _check_tuples(buffered, _PICKLES_BEFORE_2020)
            buffered.seek(0)
            loaded = torch.load(buffered, map_location="cpu", weights_only=True)
        state = _unwrapped(loaded, file)
        tensors = {name: _bounded(tensor, size) for name, tensor in state.items()}
        metadata = getattr(state, "_metadata", None)
        words = metadata if isinstance(metadata, dict) else {}
        about = words.get(_ABOUT, {})
        if _DIGEST in words and words[_DIGEST] != digest(tensors, json.dumps(about)):
            raise InputError(f"{file}: {_OTHER_DIGEST} of `state_dict._metadata`")
    except InputError:
        raise
    except Exception as error:  # a damaged zip or pickle makes its reader raise whatever it stumbles over
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"{file}: is damaged, or holds more than tensors, and was not unpickled ({reason[:120]}); "
            "give a state dict as `torch.save(net.state_dict(), FILE)` writes it, or safetensors"
        ) from None
    return Weights(tensors=tensors, about=about if isinstance(about, dict) else {})


def _unwrapped(state: Any, file: Path) -> dict[str, Tensor]:
    """Return the state dict in what a trainer saved. Raises InputError if there is not exactly one."""
    under: list[str] = []
    for _ in _UNDER:
        if _is_state_dict(state):
            return state  # type: ignore[no-any-return]  # just looked at
        under = [name for name in _UNDER if isinstance(state, dict) and isinstance(state.get(name), dict)]
        if len(under) != 1:
            break
        state = state[under[0]]
    several = f" under one name, but has {' and '.join(under)}" if under else ""
    raise InputError(
        f"{file}: is no state dict of tensors by name{several}; write one with `torch.save(net.state_dict(), FILE)`"
    )


def _is_state_dict(state: Any) -> bool:
    return isinstance(state, dict) and all(isinstance(v, Tensor) and isinstance(k, str) for k, v in state.items())


def _check_zip(file: BinaryIO) -> None:
    """Raise ValueError if a zip's parts are compressed, which PyTorch never does, or not what their checksums say."""
    with zipfile.ZipFile(file) as parts:
        names = parts.namelist()
        if len(names) > _MOST_PARTS or len(set(names)) < len(names):  # of one name, the last is read for each
            raise ValueError(f"has more than {_MOST_PARTS:,} parts, or two of one name")
        for part in parts.infolist():
            if part.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{part.filename} is compressed")
            if part.CRC == 0:  # PyTorch can be told to leave checksums out
                part.CRC = None  # type: ignore[assignment]  # as `zipfile` knows it
        if damaged := parts.testzip():
            raise ValueError(f"{damaged} has another checksum")
        for name in parts.namelist():
            if name.endswith("data.pkl"):
                _check_tuples(io.BytesIO(parts.read(name)))


def _check_tuples(file: BinaryIO, pickles: int = 1) -> None:
    """Raise ValueError for tuples of tuples, in pickles, that would be hashed for ever: 60 lines can make 2^60 values.

    And for pickles that would be read for minutes. Nothing is unpickled: followed is how many values each place of the
    stack, and each note, has, were none shared.
    """
    file.seek(0)
    for _ in range(pickles):
        begin, stack = file.tell(), list[int]()
        marks: list[int] = []
        noted: dict[Any, int] = {}
        for opcode, argument, place in pickletools.genops(file):
            before, made = opcode.stack_before, 1
            if opcode.name == "MARK":
                marks.append(len(stack))
            elif opcode.name in ("BINPUT", "LONG_BINPUT"):
                noted[argument] = stack[-1]
            else:
                marked = pickletools.markobject in before
                start = marks.pop() - before.index(pickletools.markobject) if marked else len(stack) - len(before)
                if opcode.name.startswith("TUPLE") and any(values > 1 for values in stack[start:]):  # it holds tuples
                    made += sum(stack[start:])
                elif opcode.name.startswith("TUPLE"):
                    made += 1
                elif opcode.name in ("BINGET", "LONG_BINGET"):
                    made = noted[argument]
                stack[start:] = [made] * len(opcode.stack_after)
            if made > _MOST_VALUES or (place or 0) - begin > _MOST_PICKLED:
                raise ValueError(
                    f"has a tuple of over {_MOST_VALUES:,} values, or a pickle over {_MOST_PICKLED:,} bytes"
                )


def _bounded(tensor: Tensor, most: int) -> Tensor:
    """Return a tensor. Raises ValueError if it is larger than its file: strides of 0 make few bytes look like many."""
    if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized or tensor.is_nested:
        raise ValueError("a tensor is not in plain memory")
    if tensor.numel() * tensor.itemsize > most:
        raise ValueError(f"a tensor of the size {tuple(tensor.shape)} is larger than the file")
    return tensor.detach()
