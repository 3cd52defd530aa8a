"""The single column of "One weird trick for parallelizing convolutional neural networks" (Krizhevsky, 2014).

This is what torchvision calls `alexnet`: no response normalisation, dropout before the layers it concerns and scaled
while training, and pooling to 6x6 whatever the image's size, so that its weights fit any.
"""

from alexnet.model.networks.drawing import FLATTEN, RELU, Conv, Drawing, Drop, Full, Pool, PoolTo

_POOL = Pool(window=3, stride=2)
_DROP = Drop(scaled=True)

OWT = Drawing(
    name="alexnet-owt",
    about="Krizhevsky 2014, arXiv 1404.5997, as torchvision has it: the same parameters by name and shape",
    input_px=(224,),
    least_px=63,  # 62 leave the third pooling fewer than its 3 px
    layers=(
        Conv("conv1", 64, window=11, stride=4, padding=2), RELU, _POOL,
        Conv("conv2", 192, window=5, padding=2), RELU, _POOL,
        Conv("conv3", 384, window=3, padding=1), RELU,
        Conv("conv4", 256, window=3, padding=1), RELU,
        Conv("conv5", 256, window=3, padding=1), RELU, _POOL,
        PoolTo(6), FLATTEN,
        _DROP, Full("fc6", 4096), RELU,
        _DROP, Full("fc7", 4096), RELU,
        Full("fc8"),
    ),
)  # fmt: skip
