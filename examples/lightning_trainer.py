"""Lightning (`pip install lightning`): its checkpoints hold the stream's place, inside an epoch, too.

python examples/lightning_trainer.py --data /data/ilsvrc-256

The stream is handed over as it is, not in a DataLoader. Lightning saves every loader that has `state_dict()`, and takes
no batch before its time from one that has a length. It restores the place inside an epoch only, so each is named.
"""

import argparse
from importlib.resources import files
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from alexnet import AugmentSettings, ImageStream


class Classifier(lightning.LightningModule):
    """A small network and where its images come from."""

    def __init__(self, data: Path) -> None:
        super().__init__()
        self.data = data
        self.net = nn.Sequential(
            nn.Conv2d(3, 16, 11, stride=8), nn.ReLU(), nn.AvgPool2d(9), nn.Flatten(), nn.Linear(144, 1000)
        )

    def train_dataloader(self) -> ImageStream:
        """Return this process's part of each batch; its ranks are Lightning's, which sets no RANK."""
        where = {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size, "device": self.device}
        pixels = AugmentSettings(scale="unit-variance")
        return ImageStream(self.data / "train", batch_images=20, seed=0, augmentation=pixels, **where)

    def on_train_epoch_start(self) -> None:
        """Name the epoch: from a checkpoint of an epoch's end Lightning does not restore the stream."""
        self.trainer.train_dataloader.set_epoch(self.current_epoch)

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the loss."""
        images, labels = batch
        loss = nn.functional.cross_entropy(self.net(images), labels)
        self.print(f"step {self.global_step + 1} loss {loss.item()}")
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)


parser = argparse.ArgumentParser()
parser.add_argument("--data", type=Path, default=files("alexnet.shards") / "ci-100", help="default: 100 bundled images")
parser.add_argument("--steps", type=int, default=12)
parser.add_argument("--checkpoint", type=Path, default=Path("lightning-run"), help="folder")
args = parser.parse_args()
lightning.seed_everything(0)
saving = ModelCheckpoint(args.checkpoint, every_n_train_steps=3, save_last=True)  # thousands on ImageNet
trainer = lightning.Trainer(max_steps=args.steps, callbacks=[saving], logger=False, enable_progress_bar=False)
trainer.fit(Classifier(args.data), ckpt_path="last")  # where there is none yet, from the start
