"""The same loop in several processes, on one machine or many: DistributedDataParallel under torchrun.

torchrun --nproc-per-node 2 examples/torchrun_ddp.py --data /data/ilsvrc-256

The stream takes rank and world size from torchrun's environment, so there is no DistributedSampler. `batch_images` is
the batch of all processes together: on another number of them a run goes on with the same batches.
"""

import argparse
import os
from importlib.resources import files
from pathlib import Path

import torch
from torch import distributed, nn

from alexnet import AugmentSettings, ImageStream

SAVE_EVERY = 3  # steps; thousands on ImageNet

parser = argparse.ArgumentParser()
parser.add_argument("--data", type=Path, default=files("alexnet.shards") / "ci-100", help="default: 100 bundled images")
parser.add_argument("--steps", type=int, default=12)
parser.add_argument("--checkpoint", type=Path, default=Path("ddp.pt"), help="where all processes can read it")
args = parser.parse_args()
cuda = torch.cuda.is_available()
device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
distributed.init_process_group("nccl" if cuda else "gloo")
pixels = AugmentSettings(scale="unit-variance")
train = ImageStream(args.data / "train", batch_images=20, seed=0, device=device, augmentation=pixels)
torch.manual_seed(0)
net = nn.Sequential(nn.Conv2d(3, 16, 11, stride=8), nn.ReLU(), nn.AvgPool2d(9), nn.Flatten(), nn.Linear(144, 1000))
net = nn.parallel.DistributedDataParallel(net.to(device))
optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
step = 0

if args.checkpoint.exists():
    saved = torch.load(args.checkpoint, weights_only=True, map_location=device)
    net.module.load_state_dict(saved["net"])
    optimizer.load_state_dict(saved["optimizer"])
    train.load_state_dict(saved["stream"])  # one state for all ranks
    step = saved["step"]

while step < args.steps:
    for images, labels in train:  # this rank's part of each batch
        loss = nn.functional.cross_entropy(net(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        if distributed.get_rank() == 0:
            print(f"step {step} loss {loss.item()}")  # of this rank's images
        if distributed.get_rank() == 0 and (step % SAVE_EVERY == 0 or step == args.steps):
            state = {"net": net.module.state_dict(), "optimizer": optimizer.state_dict(), "stream": train.state_dict()}
            torch.save({**state, "step": step}, partial := args.checkpoint.with_suffix(".partial"))
            partial.replace(args.checkpoint)
        if step == args.steps:
            break
distributed.destroy_process_group()
