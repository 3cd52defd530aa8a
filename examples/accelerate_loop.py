"""Accelerate (`pip install accelerate`): `save_state()` and `load_state()` include the stream's place, once registered.

accelerate launch examples/accelerate_loop.py --data /data/ilsvrc-256

`prepare()` takes network and optimizer, not the stream, which yields each process's part of a batch, on its device.
What `skip_first_batches()` is for, `load_state()` has done.
"""

import argparse
from importlib.resources import files
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from alexnet import AugmentSettings, ImageStream

SAVE_EVERY = 3  # steps; thousands on ImageNet

parser = argparse.ArgumentParser()
parser.add_argument("--data", type=Path, default=files("alexnet.shards") / "ci-100", help="default: 100 bundled images")
parser.add_argument("--steps", type=int, default=12)
parser.add_argument("--checkpoint", type=Path, default=Path("accelerate-run"), help="folder")
args = parser.parse_args()

accelerator = Accelerator()
where = {"rank": accelerator.process_index, "world_size": accelerator.num_processes, "device": accelerator.device}
pixels = AugmentSettings(scale="unit-variance")
train = ImageStream(args.data / "train", batch_images=20, seed=0, augmentation=pixels, **where)
torch.manual_seed(0)
net = nn.Sequential(nn.Conv2d(3, 16, 11, stride=8), nn.ReLU(), nn.AvgPool2d(9), nn.Flatten(), nn.Linear(144, 1000))
net, optimizer = accelerator.prepare(net, torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9))
accelerator.register_for_checkpointing(train)

if saved := sorted(args.checkpoint.glob("step-*")):
    accelerator.load_state(saved[-1])
place = train.state_dict()
step = place["epoch"] * len(train) + place["step"]

while step < args.steps:
    for images, labels in train:  # this process's part of each batch; after load_state() what is left of an epoch
        loss = nn.functional.cross_entropy(net(images), labels)
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()
        step += 1
        accelerator.print(f"step {step} loss {loss.item()}")
        if step % SAVE_EVERY == 0 or step == args.steps:
            accelerator.save_state(partial := args.checkpoint / "partial")
            accelerator.wait_for_everyone()
            if accelerator.is_main_process:
                partial.rename(args.checkpoint / f"step-{step:07}")  # so that a kill leaves none that is half written
        if step == args.steps:
            break
accelerator.end_training()
