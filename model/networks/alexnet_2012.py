"""The network of 2012 in four drawings: the paper's, the one its authors' code ran, with a sixth convolution, and half.

    image --+-- conv1 48 -- conv2 128 --+--(both)-- conv3 192 -- conv4 192 -- conv5 128 --+--(both)-- fc6 .. fc8
            |                           |                                                 |
            +-- conv1 48 -- conv2 128 --+--(both)-- conv3 192 -- conv4 192 -- conv5 128 --+--(both)-- fc6 .. fc8

Source: the paper's figure 2 and sections 3 and 4; `layers-145.cfg`, `layers-146-2012-2011.cfg` and
`layers-145-half.cfg` of the authors' code, released in 2025.
"""

from alexnet.model.networks.architecture import (
    ALL_GATHER,
    DROP,
    FLATTEN,
    RELU,
    Architecture,
    Conv,
    Full,
    Layer,
    NormAcrossMaps,
    NormInMap,
    PadEnd,
    Pool,
)

# The code walks a 224 px image in 55 steps of 4, the last of which reaches 3 px past the edge.
_EDGE = PadEnd(3)
_POOL = Pool(window=3, stride=2)
_PAPERS_NORM = NormAcrossMaps(size=5, alpha=1e-4)
_SOURCES_NORM = NormAcrossMaps(size=5, alpha=1e-4 / 5)  # `scale=0.0001`, which the code divides by the size

_THREE_MORE: tuple[Layer, ...] = (
    ALL_GATHER,
    Conv("conv3", 192, window=3, padding=1), RELU,
    Conv("conv4", 192, window=3, padding=1, first_bias=1), RELU,
    Conv("conv5", 128, window=3, padding=1, first_bias=1), RELU, _POOL,
)  # fmt: skip

_FULLY_CONNECTED: tuple[Layer, ...] = (
    ALL_GATHER, FLATTEN,
    Full("fc6", 2048, first_bias=1), RELU, DROP,
    ALL_GATHER,
    Full("fc7", 2048, first_bias=1), RELU, DROP,
    ALL_GATHER,
    Full("fc8"),
)  # fmt: skip

_PAPERS_CONVOLUTIONS: tuple[Layer, ...] = (
    _EDGE,
    Conv("conv1", 48, window=11, stride=4), RELU, _PAPERS_NORM, _POOL,
    Conv("conv2", 128, window=5, padding=2, first_bias=1), RELU, _PAPERS_NORM, _POOL,
    *_THREE_MORE,
)  # fmt: skip

PAPER = Architecture(
    name="alexnet-2012",
    about="Krizhevsky, Sutskever and Hinton, NIPS 2012: the text of the paper",
    towers=2,
    input_px=(224,),
    layers=(*_PAPERS_CONVOLUTIONS, *_FULLY_CONNECTED),
)

SOURCE = Architecture(
    name="alexnet-2012-source",
    about="the same network as the authors' code ran it, layers-145.cfg",
    towers=2,
    input_px=(224,),
    layers=(
        _EDGE,
        Conv("conv1", 48, window=11, stride=4), _SOURCES_NORM, _POOL, RELU,
        Conv("conv2", 128, window=5, padding=2, first_bias=1), RELU,
        _SOURCES_NORM, NormInMap(size=5, alpha=1e-3 / 25), _POOL,
        *_THREE_MORE,
        *_FULLY_CONNECTED,
    ),
)  # fmt: skip

# Section 6 has "an extra sixth convolutional layer over the last pooling layer". Window, widths and what it reads are
# those of layers-146-2012-2011.cfg, whose logged 38.99/16.62 is the paper's 39.0/16.6.
CONV6 = Architecture(
    name="alexnet-2012-conv6",
    about="the paper's network with a sixth convolution on the last pooling layer (section 6)",
    towers=2,
    input_px=(224,),
    layers=(
        *_PAPERS_CONVOLUTIONS,
        ALL_GATHER,
        Conv("conv6", 128, window=3, padding=1, first_bias=1), RELU,
        *_FULLY_CONNECTED,
    ),
)  # fmt: skip

# Section 3.2's comparison: half of the maps, but conv5 and the fully connected layers whole.
ONE_TOWER = Architecture(
    name="alexnet-2012-one-tower",
    about="half of the paper's maps on one GPU, layers-145-half.cfg: what section 3.2 compares the two towers with",
    input_px=(224,),
    layers=(
        _EDGE,
        Conv("conv1", 48, window=11, stride=4), RELU, _PAPERS_NORM, _POOL,
        Conv("conv2", 128, window=5, padding=2, first_bias=1), RELU, _PAPERS_NORM, _POOL,
        Conv("conv3", 192, window=3, padding=1), RELU,
        Conv("conv4", 192, window=3, padding=1, first_bias=1), RELU,
        Conv("conv5", 256, window=3, padding=1, first_bias=1), RELU, _POOL,
        FLATTEN,
        Full("fc6", 4096, first_bias=1), RELU, DROP,
        Full("fc7", 4096, first_bias=1), RELU, DROP,
        Full("fc8"),
    ),
)  # fmt: skip
