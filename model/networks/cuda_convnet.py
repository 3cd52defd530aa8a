"""The small networks that came with cuda-convnet in 2011: CIFAR-10, 32x32 px, three 5x5 convolutions.

`CIFAR` is `layers-18pct.cfg`: 18% error after 20 minutes, with the normalisation that the network of 2012 has a second
one of; it is also the four-layer network of the paper's figure 1. `CIFAR_80S` is `layers-80sec.cfg`: 26% error after 80
seconds on a GPU of its day, without normalisation and with a hidden layer.
"""

from alexnet.model.networks.drawing import FLATTEN, RELU, Conv, Drawing, Full, NormInMap, Pool

_MAX = Pool(window=3, stride=2, kind="max", ceil=True)
_MEAN = Pool(window=3, stride=2, kind="average", ceil=True)
_NORM = NormInMap(size=3, alpha=5e-5 / 9)  # `scale=0.00005`, which the code divides by 3 * 3

CIFAR = Drawing(
    name="cuda-convnet-cifar",
    about="Krizhevsky 2011, cuda-convnet's layers-18pct.cfg: 18% error on CIFAR-10 in 20 minutes",
    input_px=(32,),
    shards_px=(32,),
    layers=(
        Conv("conv1", 32, window=5, padding=2), _MAX, RELU, _NORM,
        Conv("conv2", 32, window=5, padding=2), RELU, _MEAN, _NORM,
        Conv("conv3", 64, window=5, padding=2), RELU, _MEAN,
        FLATTEN,
        Full("fc10"),
    ),
)  # fmt: skip

CIFAR_80S = Drawing(
    name="cuda-convnet-cifar-80s",
    about="Krizhevsky 2011, cuda-convnet's layers-80sec.cfg: 26% error on CIFAR-10 in 80 seconds",
    input_px=(32,),
    shards_px=(32,),
    layers=(
        Conv("conv1", 32, window=5, padding=2), _MAX, RELU,
        Conv("conv2", 32, window=5, padding=2), RELU, _MEAN,
        Conv("conv3", 64, window=5, padding=2), RELU, _MEAN,
        FLATTEN,
        Full("fc64", 64), RELU,
        Full("fc10"),
    ),
)  # fmt: skip
