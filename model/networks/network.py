"""What every network here is to the rest of the system: scores of images, a clock for dropout, and named layers."""

from collections.abc import Sequence

from torch import Tensor, nn

from alexnet.model.layers import StepClock
from alexnet.model.networks.drawing import Drawing
from alexnet.model.networks.settings import NetSettings, drawing_of
from alexnet.model.networks.trace import Placed, trace


class Network(nn.Module):
    """(n, channels, px, px) images -> (n, classes) scores.

    The scale of the images (0-255 minus the mean, or of unit variance) is the recipe's business. A network of one
    channel reads the mean of colour images' channels. Raises InputError for images of a size it does not take.
    """

    def __init__(self, settings: NetSettings) -> None:
        super().__init__()
        self.settings = settings
        self.drawing: Drawing = drawing_of(settings)
        self.clock = StepClock()

    def forward(self, images: Tensor) -> Tensor:
        """Return the class scores."""
        for side in images.shape[2:]:
            self.drawing.check_px(side)
        if self.settings.input_channels == 1 and images.shape[1] > 1:
            images = images.mean(dim=1, keepdim=True)
        return self.scores(images)

    def scores(self, images: Tensor) -> Tensor:
        """Return the class scores of images whose shape is right."""
        raise NotImplementedError

    def weighted(self) -> dict[str, Sequence[nn.Module | None]]:
        """Return, by name and in order, each layer with parameters: one module a tower, None if it lives elsewhere."""
        raise NotImplementedError

    def placed(self, tower: int = 0) -> tuple[Placed, ...]:
        """Return the layers of one tower in their places."""
        settings, px = self.settings, self.drawing.input_px[0]
        return trace(self.drawing, px=px, channels=settings.input_channels, classes=settings.classes, tower=tower)
