"""A PyTorch loop of one's own. Stopped anywhere, it goes on bit for bit from its last checkpoint, inside an epoch, too.

python examples/plain_loop.py --data /data/ilsvrc-256
"""

import argparse
from importlib.resources import files
from pathlib import Path

import torch
from torch import nn

from alexnet import AugmentSettings, ImageStream

SAVE_EVERY = 3  # steps; thousands on ImageNet
PIXELS = AugmentSettings(scale="unit-variance")

parser = argparse.ArgumentParser()
parser.add_argument("--data", type=Path, default=files("alexnet.shards") / "ci-100", help="default: 100 bundled images")
parser.add_argument("--steps", type=int, default=12)
parser.add_argument("--checkpoint", type=Path, default=Path("plain.pt"))
args = parser.parse_args()

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
train = ImageStream(args.data / "train", batch_images=20, seed=0, device=device, augmentation=PIXELS)
val = ImageStream(args.data / "val", batch_images=20, augment=False, device=device, augmentation=PIXELS)
torch.manual_seed(0)  # of the initial values; order and augmentation have the stream's own seed
net = nn.Sequential(nn.Conv2d(3, 16, 11, stride=8), nn.ReLU(), nn.AvgPool2d(9), nn.Flatten(), nn.Linear(144, 1000))
net.to(device)
optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
step = 0

if args.checkpoint.exists():
    saved = torch.load(args.checkpoint, weights_only=True)
    net.load_state_dict(saved["net"])
    optimizer.load_state_dict(saved["optimizer"])
    train.load_state_dict(saved["stream"])
    step = saved["step"]

while step < args.steps:
    for images, labels in train:  # an epoch; after load_state_dict() what is left of one
        loss = nn.functional.cross_entropy(net(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        print(f"step {step} loss {loss.item()}")
        if step % SAVE_EVERY == 0 or step == args.steps:
            state = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "stream": train.state_dict()}
            torch.save({**state, "step": step}, partial := args.checkpoint.with_suffix(".partial"))
            partial.replace(args.checkpoint)  # a kill while it is written leaves the last one whole
        if step == args.steps:
            break

with torch.no_grad():
    right = sum((net(images).argmax(1) == labels).sum().item() for images, labels in val)
print(f"{right} of {val.images} validation images are right")
