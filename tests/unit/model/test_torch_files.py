"""PyTorch's files as PyTorch reads them, whatever it wrote; and files made to hurt, in little memory and one line."""

import io
import os
import pickle
import resource
import struct
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from alexnet.model.weights import Weights, digest, read_weights, write_safetensors, write_state_dict
from alexnet.shards.errors import InputError
from tests.unit.model.damage import outcomes

MOST_MB = 500


def awkward(*, late: bool) -> dict[str, Tensor]:
    """Return tensors of every type, those of after 2020 if wanted, and such as share, skip and repeat values."""
    generator = torch.Generator().manual_seed(5)
    whole = torch.randn(6, 8, generator=generator)
    types = [torch.complex64, torch.float64, torch.float16, torch.bfloat16]
    types += [torch.int64, torch.int8, torch.uint8, torch.bool]
    types += [torch.uint16, torch.uint64, torch.float8_e4m3fn] * late
    return {
        **{str(kind): (100 * whole).to(kind) for kind in types},
        "part": whole[2:, ::3],
        "turned": whole.t(),
        "again": whole,
        "expanded": torch.ones(1).expand(7),
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 3),
        "parameter": nn.Parameter(whole[:2]),
        "empty part": whole[6:],
    }


@pytest.mark.parametrize("layout", ["zip", "legacy", "unchecked"])
def test_every_tensor_is_read_as_pytorch_reads_it(tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As part of what a trainer saves, with things that are no tensors, none of which is needed."""
    file, net = tmp_path / "file", nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    plain = {"epoch": 3, "name": "n\u00fcll", "losses": [1.5, None, True, -7, 1 << 40], "raw": b"abc", "set": {1}}
    odd: dict[Any, object] = {"size": torch.Size([3]), "device": torch.device("cpu"), (1, 2): bytearray(b"x")}
    others = {**plain, **odd, "kind": torch.float32, "optimizer": torch.optim.SGD(net.parameters(), 0.1).state_dict()}
    state = {**awkward(late=layout != "legacy"), **net.state_dict()}
    torch.serialization.set_crc32_options(layout != "unchecked")
    try:
        torch.save({"state_dict": state, **others}, file, _use_new_zipfile_serialization=layout != "legacy")
    finally:
        torch.serialization.set_crc32_options(True)
    read, expected = read_weights(file).tensors, torch.load(file, weights_only=True)["state_dict"]
    assert list(read) == list(expected)
    for name, tensor in expected.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name].view(tensor.dtype), tensor.detach()), name


def test_a_header_of_any_length_is_one_of_safetensors(tmp_path: Path) -> None:
    """Also of one whose lowest byte a pickle could begin with, or whose first two a zip."""
    file, tensors = tmp_path / "net.safetensors", {"w": torch.arange(3.0)}

    def header_bytes(words: int) -> int:
        write_safetensors(file, Weights(tensors=tensors, about={"words": "x" * words}))
        assert torch.equal(read_weights(file).tensors["w"], tensors["w"])
        return int.from_bytes(file.read_bytes()[:8], "little")

    least = header_bytes(0)
    for begin in (b"\x80\x13", b"PK"):
        wanted = int.from_bytes(begin, "little")
        assert header_bytes(wanted - least) == wanted


def test_the_bytes_of_another_machine_are_turned(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(5.0), "b": torch.tensor([1 + 2j]), "c": torch.arange(4, dtype=torch.int16)}
    torch.save(tensors, tmp_path / "little")
    with zipfile.ZipFile(tmp_path / "little") as little, zipfile.ZipFile(tmp_path / "big", "w") as big:
        for name in little.namelist():
            place = name.rpartition("/data/")[2]
            content = little.read(name)
            if place.isdigit():
                width = (4, 4, 2)[int(place)]
                content = b"".join(content[k : k + width][::-1] for k in range(0, len(content), width))
            big.writestr(name, b"big" if name.endswith("byteorder") else content)
    read, expected = read_weights(tmp_path / "big").tensors, torch.load(tmp_path / "big", weights_only=True)
    assert all(torch.equal(read[name], expected[name]) and torch.equal(read[name], tensors[name]) for name in tensors)


def text(words: str) -> bytes:
    return b"X" + struct.pack("<I", len(words.encode())) + words.encode()


def number(value: int) -> bytes:
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def name(path: str) -> bytes:
    module, _, last = path.rpartition(".")
    return f"c{module}\n{last}\n".encode()


UTILS, FLOATS = "torch._utils._rebuild", name("torch.float32")


def call(path: str, *arguments: bytes) -> bytes:
    return name(path) + b"(" + b"".join(arguments) + b"tR"


def numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(
    numel: int = 4, *, size: tuple[int, ...] = (4,), stride: tuple[int, ...] = (1,), offset: int = 0, key: str = "0"
) -> bytes:
    storage = b"(" + text("storage") + name("torch.FloatStorage") + text(key) + text("cpu") + number(numel) + b"tQ"
    shape = number(offset) + numbers(size) + numbers(stride)
    return call(f"{UTILS}_tensor_v2", storage, shape, b"\x89", call("collections.OrderedDict"))


def table(**values: bytes) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in values.items()) + b"u"


def zipped(program: bytes, *storages: bytes, method: int = zipfile.ZIP_STORED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as file:
        file.writestr("a/version", "3\n")  # without which PyTorch looks at nothing
        file.writestr("a/data.pkl", b"\x80\x02" + program + b".")
        for key, storage in enumerate(storages):
            file.writestr(f"a/data/{key}", storage)
    return content.getvalue()


def legacy(program: bytes, storages: bytes = b"") -> bytes:
    before = (pickle.dumps(0x1950A86A20F9469CFC6C, 2), pickle.dumps(1001, 2), pickle.dumps({}, 2))
    return b"".join((*before, b"\x80\x02" + program + b".", pickle.dumps(["0"], 2), storages))


def safetensors(header: bytes, *, length: int | None = None, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def about(words: str) -> bytes:
    return safetensors(b'{"__metadata__":{"alexnet":"' + words.replace('"', '\\"').encode() + b'"}}')


FOUR = struct.pack("4f", 1, 2, 3, 4)
HUGE = 5 << 30
MILLIONS = 3_990_000  # of bytes of words, the most that a pickle may have
HOSTILE = {
    "a bytearray": zipped(call("builtins.bytearray", number(4 * HUGE))),
    "a bytearray beside": zipped(table(a=tensor(), b=call("builtins.bytearray", number(4 * HUGE))), FOUR),
    "a bytearray of before 2020": legacy(call("builtins.bytearray", number(4 * HUGE))),
    "a storage that is called": zipped(call("torch.FloatStorage", number(HUGE))),
    "a tensor that is called": zipped(call("torch.Tensor", number(HUGE))),
    "no strides": zipped(table(a=tensor(1, size=(HUGE,), stride=(0,))), FOUR[:4]),
    "more than the file": zipped(table(a=tensor(HUGE, size=(HUGE,))), FOUR),
    "more than the file of before 2020": legacy(table(a=tensor(HUGE)), struct.pack("<q", HUGE)),
    "more than the storage": zipped(table(a=tensor(5, size=(5,))), FOUR),
    "beyond the storage": zipped(table(a=tensor(offset=1)), FOUR),
    "before the storage": zipped(table(a=tensor(offset=-1)), FOUR),
    "a negative size": zipped(table(a=tensor(size=(-4,))), FOUR),
    "a size without strides": zipped(table(a=tensor(stride=())), FOUR),
    "one storage many times": zipped(table(**{f"t{k}": tensor(1 << 20, key=str(k)) for k in range(999)}), FOUR),
    "compressed": zipped(table(a=tensor(1 << 26)), bytes(1 << 28), method=zipfile.ZIP_DEFLATED),
    "compressed words": zipped(b"]" * (1 << 28), method=zipfile.ZIP_DEFLATED),
    "a key that hashes for ever": zipped(b"}(" + text("x") + b"\x85" + b"q\x00h\x00\x86" * 60 + b"Nu"),
    "a key that hashes for ever, of before 2020": legacy(b"}(" + text("x") + b"\x85" + b"q\x00h\x00\x86" * 60 + b"Nu"),
    "no memory": zipped(
        table(a=call(f"{UTILS}_meta_tensor_no_storage", FLOATS, numbers((4,)), numbers((1,)), b"\x89"))
    ),
    "itself": zipped(b"}q\x00(" + text("model") + b"h\x00u"),
    "lists": zipped(b"]" * MILLIONS),
    "strings": zipped(b"U\x02ab" * (MILLIONS // 4)),
    "notes": zipped(b"N" + b"".join(b"r" + struct.pack("<I", k) for k in range(MILLIONS // 5))),
    "an endless name": legacy(b"c" + b"a" * (1 << 26)),
    "a bytearray's instruction": zipped(b"\x96" + struct.pack("<Q", 4 * HUGE)),
    "a directory of nothing": b"PK\5\6" + bytes(18),
    "a header of an exabyte": safetensors(b"{}", length=1 << 60),
    "a header of 99 MB": safetensors(b"{}", length=99_000_000),
    "a shape of an exabyte": safetensors(b'{"a":{"dtype":"F32","shape":[9999999999],"data_offsets":[0,39999999996]}}'),
    "one place twice": safetensors(
        b"{%s}" % b",".join(b'"%c":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}' % c for c in b"ab"), data=FOUR
    ),
    "a long shape": safetensors(b'{"a":{"dtype":"U8","shape":[' + b"0," * (3 * MILLIONS // 2) + b"],}"),
    "brackets": about("[" * 10_000),
    "braces": about('{"a":' * 10_000 + "1" + "}" * 10_000),
    "a long number": about('{"step":' + "9" * 1_000_000 + "}"),
    "NumPy's": b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'}",
    "ONNX's": b"\x08\x07\x12\x07pytorch",
    "HDF5's": b"\x89HDF\r\n\x1a\n" + bytes(99),
    "a tar": bytes(10_240),
    "nothing": b"",
    "one byte": b"P",
}
SLOW = frozenset({"lists", "strings", "notes"})
SOUND = frozenset({"a size without strides"})  # PyTorch makes one value of it, and it is in the file


def in_a_child(file: Path) -> tuple[str, float]:
    """Read a file in a process of its own; return what it said, and the most memory above the start, MB."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
        start = memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        try:
            read_weights(file)
            said = "read"
        except InputError as error:
            said = str(error)
        except BaseException as error:
            said = f"FAULT {error!r}"
        os.write(writer, f"{memory('VmHWM') - start}\t{said}".encode()[:4000])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        most, _, said = pipe.read().partition("\t")
    os.waitpid(child, 0)
    return said, float(most)


def memory(which: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(which))
    return int(line.split()[1]) / 1000


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] if kind in SLOW else []) for kind in HOSTILE]
)
def test_what_is_made_to_hurt_is_refused_in_a_line_and_little_memory(kind: str, tmp_path: Path) -> None:
    (file := tmp_path / "file").write_bytes(HOSTILE[kind])
    said, most = in_a_child(file)
    assert said.startswith("read" if kind in SOUND else f"{file}: ")
    assert "\n" not in said
    assert len(said) < 600
    assert most < MOST_MB


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, Path("/dev/zero")):
        with pytest.raises(InputError, match=r"cannot be read \(is no regular file\)"):
            read_weights(path)


@pytest.mark.parametrize("each", [61, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("write", [write_safetensors, write_state_dict])
def test_a_flipped_bit_is_found_or_changes_nothing(tmp_path: Path, write: Any, each: int) -> None:
    """Any bit of a file that was exported: its digest, or the zip's checksums, tell."""
    file, words = tmp_path / "file", {"step": 3, "net": {"arch": "lenet-5"}}
    tensors = {"layer.weight": torch.arange(20.0).reshape(5, 4), "layer.bias": torch.randn(5)}
    write(file, Weights(tensors=tensors, about=words))

    def read() -> object:
        found = read_weights(file)
        return digest(found.tensors), found.about or words

    found = outcomes(file, range(0, 8 * file.stat().st_size, each), read)
    assert not found["else"]
    assert found["refused"] > found["same"] / 7


@settings(max_examples=100, deadline=None)
@given(begin=st.sampled_from([b"", b"PK\3\4", b"\x80\x02", struct.pack("<Q", 40)]), rest=st.binary())
def test_any_bytes_are_refused_or_read(begin: bytes, rest: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.getbasetemp() / "any-weights"
    for content in (begin + rest, zipped(rest), legacy(rest)):
        file.write_bytes(content)
        with suppress(InputError):
            read_weights(file)
