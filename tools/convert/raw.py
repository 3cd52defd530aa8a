"""Turn the raw pixels of the small sets into images: they were never encoded, so there is nothing to decode."""

import numpy as np
from PIL import Image

from alexnet.tools.convert.listing import Encoding

CIFAR_PX, CIFAR_BYTES = 32, 3 * 32 * 32
MNIST_PX, MNIST_BYTES = 28, 28 * 28


def decode_raw(data: bytes, encoding: Encoding) -> Image.Image:
    """Return one image: mode RGB, 32x32, for `cifar10`; mode L, 28x28, for `mnist`.

    Raises ValueError if `data` has another length: a file that was cut short.
    """
    wanted = {"cifar10": CIFAR_BYTES, "mnist": MNIST_BYTES}[encoding]
    if len(data) != wanted:
        raise ValueError(f"{len(data)} bytes where an image of {encoding} has {wanted}")
    if encoding == "mnist":
        return Image.frombytes("L", (MNIST_PX, MNIST_PX), data)
    planes = np.frombuffer(data, np.uint8).reshape(3, CIFAR_PX, CIFAR_PX)
    return Image.fromarray(np.ascontiguousarray(planes.transpose(1, 2, 0)))
