"""Checkpoints of what lies on a GPU: the values of the moment, though training goes on at once."""

from pathlib import Path

import torch

from alexnet.model.checkpoint import Checkpoint, checkpoints, load_checkpoint
from alexnet.model.checkpoint_writer import CheckpointWriter


def test_a_checkpoint_holds_what_was_there_at_the_call(tmp_path: Path) -> None:
    writer, generator = CheckpointWriter(tmp_path, keep=9), torch.Generator().manual_seed(0)
    before = {
        "net.conv": torch.randn(96, 3, 11, 11, generator=generator).to(memory_format=torch.channels_last),
        "net.full": torch.randn(4096, 4096, generator=generator),
    }
    on_gpu = {name: tensor.cuda() for name, tensor in before.items()}
    for step in range(3):
        writer.save(Checkpoint(step=step, tensors=on_gpu, progress={}))
        for tensor in on_gpu.values():
            tensor.add_(1)
    writer.wait()
    for step, path in enumerate(checkpoints(tmp_path)):
        for name, tensor in load_checkpoint(path).tensors.items():
            expected = before[name].clone()
            for _ in range(step):
                expected.add_(1)
            assert torch.equal(tensor, expected)
