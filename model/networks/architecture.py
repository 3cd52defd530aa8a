"""The vocabulary that networks are written in, and what each layer reads and gives.

A network is a list of layers, read from top to bottom as a paper's figure is. The list describes one tower; widths are
a tower's own (48 where the paper has 48 on each GPU). Where it says `ALL_GATHER`, the next layer reads the values of
all towers; everywhere else a tower reads only its own. A layer knows what shape it turns its input into, (maps, height,
width) or (units,), and nothing else: this is data, without torch.
"""

from dataclasses import dataclass, field
from math import prod
from typing import ClassVar, Literal

from alexnet.shards.errors import InputError

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """One step from the image to the scores. `short`: what layers without names are called by."""

    short: ClassVar[str] = ""

    def after(self, shape: Shape) -> Shape:
        """Return the shape of its output when `shape` is its input's."""
        return shape


@dataclass(frozen=True)
class Weighted(Layer):
    """A layer with parameters. Only these need names.

    `first_bias`: what the 2012 paper starts its biases from: 1 gives the rectifiers that follow positive inputs. Only
    initial values as in the paper or its source read it.
    """

    name: str
    first_bias: float = field(default=0.0, kw_only=True)

    @property
    def what(self) -> str:
        """Say in a few words what it does."""
        raise NotImplementedError

    def fan_in(self, shape: Shape) -> list[int]:
        """Return how many values of an input of this shape an output reads; of each map where that differs."""
        raise NotImplementedError

    def weights(self, shape: Shape) -> int:
        """Count the weights, biases apart, for an input of this shape: one for each value that an output reads."""
        read = self.fan_in(shape)
        return self.after(shape)[0] * sum(read) // len(read)


@dataclass(frozen=True)
class Conv(Weighted):
    """Convolve: `maps` filters of `window` x `window` every `stride`, on an input with `padding` zeros around it.

    `table`: for each output map the input maps that it reads; left out, it reads all.
    """

    maps: int
    window: int
    stride: int = 1
    padding: int = 0
    table: tuple[tuple[int, ...], ...] | None = None

    def after(self, shape: Shape) -> Shape:
        """Return the shape of the maps; only whole windows count."""
        return (self.maps, *((side + 2 * self.padding - self.window) // self.stride + 1 for side in shape[1:]))

    @property
    def what(self) -> str:
        """Say the window, the stride, and whether there is a table."""
        stride = f"/{self.stride}" if self.stride > 1 else ""
        return f"conv {self.window}x{self.window}{stride}{', table' if self.table else ''}"

    def fan_in(self, shape: Shape) -> list[int]:
        """Count a window's values in all maps that are read."""
        maps = map(len, self.table) if self.table else shape[:1]
        return [read * self.window**2 for read in maps]


@dataclass(frozen=True)
class Full(Weighted):
    """Connect every unit to every value of the layer before. `units` of 0: one for each class."""

    units: int = 0

    def after(self, shape: Shape) -> Shape:
        """Return (units,), whatever the input's shape."""
        return (self.units,)

    @property
    def what(self) -> str:
        """Say that every unit reads everything."""
        return "full"

    def fan_in(self, shape: Shape) -> list[int]:
        """Count the input's values."""
        return [prod(shape)]


@dataclass(frozen=True)
class Subsample(Weighted):
    """Add up windows that do not overlap, times a coefficient, plus a bias, one of each a map (LeNet-5)."""

    window: int = 2

    def after(self, shape: Shape) -> Shape:
        """Return the shape of the maps; only whole windows count."""
        return (shape[0], *(side // self.window for side in shape[1:]))

    @property
    def what(self) -> str:
        """Say its paper's word for it."""
        return "subsample"

    def fan_in(self, shape: Shape) -> list[int]:
        """Count a window's values."""
        return [self.window**2]

    def weights(self, shape: Shape) -> int:
        """Count the coefficients, one a map."""
        return shape[0]


@dataclass(frozen=True)
class Activation(Layer):
    """Apply a function to each value; `scaled-tanh` is 1.7159 tanh(2x / 3)."""

    short: ClassVar[str] = "act"
    kind: Literal["relu", "tanh", "scaled-tanh"]


@dataclass(frozen=True)
class Pool(Layer):
    """Take the largest value, or the mean, of windows every `stride`. `ceil`: one cut off by the edge counts, too."""

    short: ClassVar[str] = "pool"
    window: int = 3
    stride: int = 2
    kind: Literal["max", "average"] = "max"
    ceil: bool = False

    def after(self, shape: Shape) -> Shape:
        """Return the shape of the maps, one value a window."""
        rest = [side - self.window for side in shape[1:]]
        return (shape[0], *((-(-r // self.stride) if self.ceil else r // self.stride) + 1 for r in rest))


@dataclass(frozen=True)
class PoolTo(Layer):
    """Take means of as many windows as give maps of `px` x `px`, whatever the input's size."""

    short: ClassVar[str] = "pool_to"
    px: int

    def after(self, shape: Shape) -> Shape:
        """Return (maps, px, px)."""
        return (shape[0], self.px, self.px)


@dataclass(frozen=True)
class NormAcrossMaps(Layer):
    """Divide by (k + alpha * sum of squares over `size` neighbouring maps) ** beta (paper, section 3.3)."""

    short: ClassVar[str] = "norm"
    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 2.0


@dataclass(frozen=True)
class NormInMap(Layer):
    """Divide by (1 + alpha * sum of squares over `size` x `size` neighbours in the same map) ** beta."""

    short: ClassVar[str] = "norm_in_map"
    size: int
    alpha: float
    beta: float = 0.75


@dataclass(frozen=True)
class PadEnd(Layer):
    """Add `px` rows of zeros below and columns to the right."""

    short: ClassVar[str] = "pad"
    px: int

    def after(self, shape: Shape) -> Shape:
        """Return the padded shape."""
        return (shape[0], *(side + self.px for side in shape[1:]))


@dataclass(frozen=True)
class PadTo(Layer):
    """Set the image into the middle of a square of `px` zeros."""

    short: ClassVar[str] = "pad"
    px: int

    def after(self, shape: Shape) -> Shape:
        """Return the square; larger images stay as they are."""
        return (shape[0], *(max(side, self.px) for side in shape[1:]))


@dataclass(frozen=True)
class Drop(Layer):
    """Drop units while training. `scaled`: those that stay are scaled up then, and nothing happens in evaluation."""

    short: ClassVar[str] = "drop"
    scaled: bool = False


@dataclass(frozen=True)
class Flatten(Layer):
    """Turn maps into one row of units."""

    short: ClassVar[str] = "flat"

    def after(self, shape: Shape) -> Shape:
        """Return (maps * height * width,), one map after the other."""
        maps, height, width = shape
        return (maps * height * width,)


@dataclass(frozen=True)
class AllGather(Layer):
    """Let the next layer read all of `towers` towers."""

    short: ClassVar[str] = "meet"
    towers: int = 2

    def after(self, shape: Shape) -> Shape:
        """Return the shape of all towers' maps or units, one tower's after the other's."""
        return (shape[0] * self.towers, *shape[1:])


RELU, TANH, SCALED_TANH = Activation("relu"), Activation("tanh"), Activation("scaled-tanh")
DROP, FLATTEN, ALL_GATHER = Drop(), Flatten(), AllGather()


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Hold one network: its layers and the images it is for.

    `about`: who, when, where it is described. `input_px`: sizes it takes, the usual one first. `least_px`: if not 0, it
    takes every size from here on. `shards_px`: sizes its data must be stored in, for networks whose images are small;
    empty where it trains on crops. `channels`: 3 for colour, 1 for grey. `torchvision`: its parameters are called as
    torchvision calls them, `features.0.weight` to `classifier.6.bias`, and not `towers.0.conv1.weight` and so on.
    """

    name: str
    about: str
    input_px: tuple[int, ...]
    layers: tuple[Layer, ...]
    towers: int = 1
    channels: int = 3
    least_px: int = 0
    shards_px: tuple[int, ...] = ()
    torchvision: bool = False

    def sizes(self) -> str:
        """Say in words which images it takes."""
        return f"{self.least_px} px or more" if self.least_px else " or ".join(map(str, self.input_px)) + " px"

    def check_px(self, px: int) -> None:
        """Raise InputError unless the network takes images of this size."""
        fits = px >= self.least_px if self.least_px else px in self.input_px
        if not fits:
            raise InputError(f"images of {px} px: {self.name} takes {self.sizes()}")


def weighted_names(architecture: Architecture) -> list[str]:
    """Return the names of the layers with parameters, in order."""
    return [layer.name for layer in architecture.layers if isinstance(layer, Weighted)]
