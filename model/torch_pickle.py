"""The pickles in PyTorch's files, run by a machine of tables, lists, plain values and tensors: it calls nothing.

A pickle is a program. PyTorch's functions have stand-ins here, which note down what a tensor would be: a program that
asks for a bytearray of a terabyte gets nothing, and one that names anything else is refused.
"""

import math
import operator
import pickletools
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from types import FunctionType
from typing import Any, BinaryIO

import torch
from torch import Tensor

_MOST_OBJECTS = 500_000
"""That a program may make; a tensor takes a dozen."""

_DTYPES = {name: value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
_STORAGES = (
    *(torch.DoubleStorage, torch.FloatStorage, torch.HalfStorage, torch.BFloat16Storage, torch.BoolStorage),
    *(torch.LongStorage, torch.IntStorage, torch.ShortStorage, torch.CharStorage, torch.ByteStorage),
    *(torch.ComplexDoubleStorage, torch.ComplexFloatStorage),
)


@dataclass(frozen=True, kw_only=True)
class Stored:
    """Say where a tensor is in a file: `numel` values of `dtype` under `key`, of which it sees some, as strides say."""

    key: str
    dtype: torch.dtype
    numel: int
    offset: int = 0
    size: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()

    def nbytes(self) -> int:
        """Return the bytes of the whole storage."""
        return self.numel * self.dtype.itemsize

    def within(self, raw: Tensor, most: int) -> Tensor:
        """Return the tensor, a view of its storage's bytes, uint8. Raises ValueError for what is not inside."""
        numbers = (self.offset, *self.size, *self.stride)
        if len(self.size) != len(self.stride) or not all(type(n) is int and 0 <= n < 1 << 62 for n in numbers):
            raise ValueError(f"a tensor has the size {self.size} and the strides {self.stride}")
        if math.prod(self.size) * self.dtype.itemsize > most:  # strides of 0 make few bytes look like many
            raise ValueError(f"a tensor of the size {self.size} is larger than the file")
        last = self.offset + sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))
        if 0 not in self.size and last >= self.numel:
            raise ValueError(f"a tensor reaches beyond the {self.numel:,} values of its storage")
        return torch.as_strided(raw.view(self.dtype), self.size, self.stride, 0 if 0 in self.size else self.offset)


class _Ignored:
    """Stand for what is neither a tensor in plain memory nor a table, a list or a plain value."""


_IGNORED = _Ignored()


class Machine:
    """Run a pickle's program, of the instructions that `torch.save` uses. `storages`: those that it spoke of."""

    def __init__(self) -> None:
        self.storages: dict[str, Stored] = {}
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # what each mark has put aside
        self._memo: dict[int, Any] = {}

    def run(self, file: BinaryIO) -> Any:
        """Return what the program leaves."""
        made = 0
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name == "STOP":
                return self._stack.pop()
            if opcode.name in _CONSTANTS:
                self._stack.append(argument)
                continue
            if opcode.name not in _INSTRUCTIONS:
                raise ValueError(f"has the instruction {opcode.name}")
            made += opcode.name in _MAKING
            if made > _MOST_OBJECTS:
                raise ValueError(f"is to make more than {_MOST_OBJECTS:,} objects")
            _INSTRUCTIONS[opcode.name](self, argument)
        raise ValueError("does not end")

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self._stack.append(value)

    def mark(self, _: object) -> None:
        """Begin a new stack."""
        self._below.append(self._stack)
        self._stack = []

    def marked(self) -> list[Any]:
        """Take everything since the last mark."""
        items, self._stack = self._stack, self._below.pop()
        return items

    def last(self, count: int) -> list[Any]:
        """Take so many values."""
        return [self._stack.pop() for _ in range(count)][::-1]

    def name(self, argument: str) -> None:
        """Stand in for what is called `module name`."""
        if argument not in _NAMES:
            raise ValueError(f"names {argument.replace(' ', '.')}")
        self.push(_NAMES[argument])

    def call(self, _: object) -> None:
        """Call a stand-in, and none but a stand-in."""
        function, arguments = self.last(2)
        self.push(function(*arguments) if isinstance(function, FunctionType) else _IGNORED)

    def storage(self, _: object) -> None:
        """Note down a storage: ('storage', type, key, device, number of values[, (key, offset, values) of a part])."""
        kind, dtype, key, _, numel, *part = self._stack.pop()
        if kind != "storage" or type(numel) is not int or numel < 0 or not isinstance(key, str):
            raise ValueError(f"speaks of {kind!r}, not of a storage")
        if not isinstance(dtype, torch.dtype):
            self.push(_IGNORED)
            return
        stored = self.storages.setdefault(key, Stored(key=key, dtype=dtype, numel=numel))
        if (stored.dtype.itemsize, stored.numel) != (dtype.itemsize, numel):
            raise ValueError(f"says two sizes of storage {key}")
        self.push(replace(stored, dtype=dtype, offset=part[0][1] if part and part[0] else 0))

    def fill(self, pairs: Iterable[tuple[Any, Any]]) -> None:
        """Put values into a table; those whose keys are not plain are left out, as some take for ever to be hashed."""
        table = self._stack[-1]
        if isinstance(table, dict):
            table.update((key, value) for key, value in pairs if isinstance(key, str | int | float))

    def extend(self, items: list[Any]) -> None:
        """Append to a list."""
        if isinstance(self._stack[-1], list):
            self._stack[-1].extend(items)

    def build(self, _: object) -> None:
        """Keep what a state dict knows of itself."""
        state = self._stack.pop()
        if isinstance(self._stack[-1], OrderedDict) and isinstance(state, dict):
            self._stack[-1]._metadata = state.get("_metadata")  # type: ignore[attr-defined]

    def remember(self, place: int) -> None:
        """Note the value on top."""
        self._memo[place] = self._stack[-1]

    def recall(self, place: int) -> None:
        """Push what was noted."""
        self.push(self._memo[place])


def _pairs(items: list[Any]) -> Iterable[tuple[Any, Any]]:
    return zip(items[::2], items[1::2], strict=True)


_Instruction = Callable[[Machine, Any], None]
_CONSTANTS = frozenset({"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING"})
_MAKING = frozenset(
    {"EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
    | {"MARK", "REDUCE", "NEWOBJ", "BINPERSID"}
)
_INSTRUCTIONS: dict[str, _Instruction] = {
    "PROTO": lambda machine, _: None,
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_SET": lambda machine, _: machine.push(_IGNORED),
    "MARK": Machine.mark,
    "TUPLE": lambda machine, _: machine.push(tuple(machine.marked())),
    "TUPLE1": lambda machine, _: machine.push(tuple(machine.last(1))),
    "TUPLE2": lambda machine, _: machine.push(tuple(machine.last(2))),
    "TUPLE3": lambda machine, _: machine.push(tuple(machine.last(3))),
    "APPEND": lambda machine, _: machine.extend(machine.last(1)),
    "APPENDS": lambda machine, _: machine.extend(machine.marked()),
    "SETITEM": lambda machine, _: machine.fill(_pairs(machine.last(2))),
    "SETITEMS": lambda machine, _: machine.fill(_pairs(machine.marked())),
    "BINPUT": Machine.remember,
    "LONG_BINPUT": Machine.remember,
    "BINGET": Machine.recall,
    "LONG_BINGET": Machine.recall,
    "GLOBAL": Machine.name,
    "REDUCE": Machine.call,
    "NEWOBJ": Machine.call,
    "BINPERSID": Machine.storage,
    "BUILD": Machine.build,
}


def _table(pairs: object = ()) -> OrderedDict[Any, Any]:
    """Stand in for OrderedDict; Python 2 gave it a list of pairs."""
    table: OrderedDict[Any, Any] = OrderedDict()
    table.update((key, value) for key, value in pairs if isinstance(key, str | int | float))  # type: ignore[attr-defined]
    return table


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, grad: Any = 0, hooks: Any = 0, about: Any = 0) -> Any:
    """Stand in for _rebuild_tensor and _rebuild_tensor_v2; `about`: that it is conjugated or negated, if it is."""
    if not isinstance(storage, Stored) or about:
        return _IGNORED
    return replace(storage, offset=storage.offset + operator.index(offset), size=tuple(size), stride=tuple(stride))


def _typed_tensor(
    storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, about: Any = 0
) -> Any:
    """Stand in for _rebuild_tensor_v3, whose storage has bytes."""
    if not isinstance(storage, Stored) or not isinstance(dtype, torch.dtype) or storage.numel % dtype.itemsize:
        return _IGNORED
    of_dtype = replace(storage, dtype=dtype, numel=storage.numel // dtype.itemsize)
    return _tensor(of_dtype, offset, size, stride, about=about)


_IGNORED_NAMES = (
    *(f"torch._utils _rebuild_{kind}" for kind in ("qtensor", "sparse_tensor", "nested_tensor", "wrapper_subclass")),
    *(f"torch._utils _rebuild_{kind}" for kind in ("meta_tensor_no_storage", "device_tensor_from_numpy")),
    "torch._utils _rebuild_device_tensor_from_cpu_tensor",
    *(f"torch {kind}Storage" for kind in ("QUInt8", "QInt8", "QInt32", "QUInt4x2", "QUInt2x4")),
    *(f"torch per_{kind}" for kind in ("tensor_affine", "tensor_symmetric", "channel_affine", "channel_symmetric")),
    *("torch per_channel_affine_float_qparams", "torch.serialization _get_layout", "collections Counter"),
    *("torch Size", "torch Tensor", "torch device", "_codecs encode"),
    *(f"{module} {name}" for module in ("builtins", "__builtin__") for name in ("set", "bytearray", "complex")),
)
_NAMES: dict[str, Any] = {
    **dict.fromkeys(_IGNORED_NAMES, _IGNORED),
    **{f"torch {name}": dtype for name, dtype in _DTYPES.items()},
    **{f"torch {kind.__name__}": kind._dtype for kind in _STORAGES},
    "torch.storage UntypedStorage": torch.uint8,
    "collections OrderedDict": _table,
    "torch._utils _rebuild_tensor": _tensor,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_tensor_v3": _typed_tensor,
    "torch._utils _rebuild_parameter": lambda tensor, *_: tensor,
    "torch._utils _rebuild_parameter_with_state": lambda tensor, *_: tensor,
    "torch.nn.parameter Parameter": lambda tensor=_IGNORED, *_: tensor,
    "torch._tensor _rebuild_from_type_v2": lambda function, kind, arguments, state: function(*arguments),
}
"""What PyTorch's own restricted reader knows; anything else is refused."""
