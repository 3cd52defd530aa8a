"""The networks before and after that of 2012: LeNet-5, cuda-convnet's two for CIFAR-10, and the single column of 2014.

LeNet-5 is as section II-B of the 1998 paper describes it up to F6: C3's connection table, subsampling with a
coefficient and a bias a map, and the scaled tanh. One thing differs: its output layer compared F6 with fixed 7x12
bitmaps of the characters (RBF units); here it is an ordinary layer, trained with the cross-entropy that all the others
are trained with.

Of cuda-convnet's networks (2011; 32x32 px, three 5x5 convolutions), `CIFAR` is `layers-18pct.cfg`: 18% error after 20
minutes, with the normalisation that the network of 2012 has a second one of; it is also the four-layer network of the
paper's figure 1. `CIFAR_80S` is `layers-80sec.cfg`: 26% error after 80 seconds on a GPU of its day, without
normalisation and with a hidden layer.

The column is that of "One weird trick for parallelizing convolutional neural networks" (Krizhevsky, 2014), which
torchvision calls `alexnet`: no response normalisation, dropout before the layers it concerns and scaled while training,
and pooling to 6x6 whatever the image's size, so that its weights fit any.
"""

from alexnet.model.networks.alexnet_2012 import CONV6, ONE_TOWER, PAPER, SOURCE
from alexnet.model.networks.architecture import (
    FLATTEN,
    RELU,
    SCALED_TANH,
    Architecture,
    Conv,
    Drop,
    Full,
    NormInMap,
    PadTo,
    Pool,
    PoolTo,
    Subsample,
)

# Table I: which of S2's six maps each map of C3 reads. Threes, then fours of neighbours, fours that are not, and all.
C3_READS = (
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)  # fmt: skip

LENET_5 = Architecture(
    name="lenet-5",
    about="LeCun, Bottou, Bengio and Haffner 1998, section II-B, with a softmax for its RBF output",
    channels=1,
    input_px=(28, 32),
    shards_px=(28, 32),
    layers=(
        PadTo(32),  # MNIST's images are 28x28: the margin brings the ends of strokes to the middle of C1's windows
        Conv("c1", 6, window=5), SCALED_TANH,
        Subsample("s2"), SCALED_TANH,
        Conv("c3", 16, window=5, table=C3_READS), SCALED_TANH,
        Subsample("s4"), SCALED_TANH,
        Conv("c5", 120, window=5), SCALED_TANH,
        FLATTEN,
        Full("f6", 84), SCALED_TANH,
        Full("output"),
    ),
)  # fmt: skip


_MAX = Pool(window=3, stride=2, kind="max", ceil=True)
_MEAN = Pool(window=3, stride=2, kind="average", ceil=True)
_NORM = NormInMap(size=3, alpha=5e-5 / 9)  # `scale=0.00005`, which the code divides by 3 * 3

CIFAR = Architecture(
    name="cuda-convnet-cifar",
    about="Krizhevsky 2011, cuda-convnet's layers-18pct.cfg: 18% error on CIFAR-10 in 20 minutes",
    input_px=(32,),
    shards_px=(32,),
    layers=(
        Conv("conv1", 32, window=5, padding=2), _MAX, RELU, _NORM,
        Conv("conv2", 32, window=5, padding=2, first_bias=1), RELU, _MEAN, _NORM,
        Conv("conv3", 64, window=5, padding=2), RELU, _MEAN,
        FLATTEN,
        Full("fc10"),
    ),
)  # fmt: skip

CIFAR_80S = Architecture(
    name="cuda-convnet-cifar-80s",
    about="Krizhevsky 2011, cuda-convnet's layers-80sec.cfg: 26% error on CIFAR-10 in 80 seconds",
    input_px=(32,),
    shards_px=(32,),
    layers=(
        Conv("conv1", 32, window=5, padding=2), _MAX, RELU,
        Conv("conv2", 32, window=5, padding=2, first_bias=1), RELU, _MEAN,
        Conv("conv3", 64, window=5, padding=2), RELU, _MEAN,
        FLATTEN,
        Full("fc64", 64), RELU,
        Full("fc10"),
    ),
)  # fmt: skip


_POOL = Pool(window=3, stride=2)
_DROP = Drop(scaled=True)

OWT = Architecture(
    name="alexnet-owt",
    about="Krizhevsky 2014, arXiv 1404.5997, as torchvision has it: the same parameters by name and shape",
    input_px=(224,),
    torchvision=True,
    least_px=63,  # 62 leave the third pooling fewer than its 3 px
    layers=(
        Conv("conv1", 64, window=11, stride=4, padding=2), RELU, _POOL,
        Conv("conv2", 192, window=5, padding=2, first_bias=1), RELU, _POOL,
        Conv("conv3", 384, window=3, padding=1), RELU,
        Conv("conv4", 256, window=3, padding=1, first_bias=1), RELU,
        Conv("conv5", 256, window=3, padding=1, first_bias=1), RELU, _POOL,
        PoolTo(6), FLATTEN,
        _DROP, Full("fc6", 4096, first_bias=1), RELU,
        _DROP, Full("fc7", 4096, first_bias=1), RELU,
        Full("fc8"),
    ),
)  # fmt: skip

ARCHITECTURES: dict[str, Architecture] = {
    each.name: each for each in (LENET_5, CIFAR, CIFAR_80S, PAPER, SOURCE, CONV6, ONE_TOWER, OWT)
}
"""Every network by its name, from 1998 on."""
