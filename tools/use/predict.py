"""Predict the classes of images: any file that the converter takes, prepared as training's validation images were.

An image goes the whole way that it would have gone through the data set: resized and cut to a square, encoded, decoded,
its centre cut out, the mean subtracted. So an image that is in the data set gets the same answer here as there, unless
its EXIF data say that it lies on its side: the data set keeps it so, here it is turned upright first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from alexnet.model.placement import choose_placement
from alexnet.pipeline.augment import centre_corner
from alexnet.pipeline.normalize import normalized
from alexnet.tools.convert.image import convert_image
from alexnet.tools.convert.opening import orientation
from alexnet.tools.stored_jpeg import rgb_and_quality
from alexnet.tools.use.trained import Trained

Square = npt.NDArray[np.uint8]
"""An image as a data set stores it: RGB, (size, size, 3)."""

_UPRIGHT: dict[int, Callable[[Square], Square]] = {
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels.swapaxes(0, 1), 2),
    8: np.rot90,
}
"""What undoes an orientation of EXIF; 1 is upright."""


def upright(square: Square, turn: int) -> Square:
    """Return a square as its EXIF orientation, 1 to 8, says that it should be seen."""
    return np.ascontiguousarray(_UPRIGHT[turn](square)) if turn in _UPRIGHT else square


@dataclass(frozen=True, kw_only=True)
class Guess:
    """Hold one class and how probable a network finds it."""

    label: int
    name: str
    probability: float


class Predictor:
    """Hold one network, ready to predict. `device`: `cpu` or `cuda`, the better of the two if not said."""

    def __init__(self, trained: Trained, device: str | None = None) -> None:
        self.trained, self._finish = trained, trained.finish()
        self._placement = choose_placement(device, 1, trained.best_precision())
        self.net = trained.network(self._placement.device)

    def stored(self, file: bytes) -> tuple[Square, bool]:
        """Return what the data set would store of an image if it were upright in its file, and whether it was turned.

        Raises UndecodableError, with the reason, if it would have been rejected.
        """
        data = self.trained.data
        pixels = rgb_and_quality(convert_image(file, data.size_px, data.quality).jpeg)[0]
        turn = orientation(file)
        return upright(pixels, turn), turn in _UPRIGHT

    @torch.no_grad()
    def guesses(self, squares: Sequence[Square], most: int = 5) -> list[list[Guess]]:
        """Return the most probable classes of stored squares, uint8 (size, size, 3), the most probable first."""
        trained = self.trained
        crop_px = trained.augment.crop_px
        first = centre_corner(trained.data.size_px, crop_px)
        crops = np.stack([square[first : first + crop_px, first : first + crop_px] for square in squares])
        images = normalized(crops, np.zeros((len(crops), 3), np.float32), self._finish)
        batch = torch.from_numpy(images).to(self._placement.device).movedim(-1, 1)
        with self._placement.autocast():
            scores = self.net(batch)
        best = scores.double().softmax(dim=1).topk(min(most, scores.shape[1]), dim=1)
        return [
            [Guess(label=k, name=trained.data.name(k), probability=p) for p, k in zip(ps, ks, strict=True)]
            for ps, ks in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]
