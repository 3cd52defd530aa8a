"""Kernels of single values as a GPU runs them, against PyTorch on its CPU; the interpreter does not round to bf16."""

import torch
import torch.nn.functional as F

from alexnet.model.gpu.elementwise import bias_relu_dropout, sgd_, space_to_depth
from alexnet.model.layers import HashDropout, StepClock

DEVICE = "cuda"


def test_bias_relu_and_dropout_in_bf16_are_the_layers_to_the_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    x, bias = (torch.randn(*shape, generator=generator).bfloat16() for shape in ((130, 4096), (4096,)))
    clock = StepClock()
    clock.set(2**32 - 1, 70_000, 2**32 - 5)
    expected = HashDropout(clock, 7, 2048, 0.5)(F.relu(x.float() + bias.float())).bfloat16()
    given = torch.randn(x.shape, generator=generator).bfloat16()
    mine = [value.to(DEVICE).requires_grad_() for value in (x, bias)]
    now = clock.now.to(DEVICE)
    y = bias_relu_dropout(mine[0], mine[1], now, relu=True, layer=7, first_unit=2048, rate=0.5, scaled=False)
    to_x, to_bias = (gradient.cpu() for gradient in torch.autograd.grad(y, mine, given.to(DEVICE)))
    assert torch.equal(y.cpu(), expected)
    assert torch.equal(to_x, given * (expected > 0))
    torch.testing.assert_close(to_bias.double(), to_x.double().sum(0), rtol=2**-8, atol=1e-4)


def test_the_update_is_pytorchs_fused_one_on_a_cpu_to_the_bit() -> None:
    count = (1 << 20) + 48
    generator = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(count, generator=generator))
    theirs = torch.optim.SGD([weight], lr=0.01, momentum=0.9, weight_decay=0.0005, fused=True)
    master, momentum = weight.detach().to(DEVICE), torch.zeros(count, device=DEVICE)
    working = torch.zeros(count, dtype=torch.bfloat16, device=DEVICE)
    for rate, factor in ((0.01, 0.9), (0.02, 0.45), (0.003, 0.9)):
        gradient = torch.randn(count, generator=generator).bfloat16()
        weight.grad = gradient.float()
        theirs.param_groups[0].update(lr=rate, momentum=factor)
        theirs.step()
        rates = torch.tensor([rate, factor], device=DEVICE)
        sgd_(master, momentum, gradient.to(DEVICE), working, rates, 0.0005)
    assert torch.equal(master.cpu(), weight)
    assert torch.equal(momentum.cpu(), theirs.state[weight]["momentum_buffer"])
    assert torch.equal(working.cpu(), weight.bfloat16())


def test_images_are_laid_out_as_pixel_unshuffle_does() -> None:
    images = torch.randn(3, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    expected = F.pixel_unshuffle(F.pad(images, (2, 2, 2, 2)), 4).bfloat16()
    for memory in (torch.channels_last, torch.contiguous_format):
        out = torch.empty_like(expected, device=DEVICE).to(memory_format=torch.channels_last)
        space_to_depth(images.to(DEVICE, memory_format=memory), out, 4, 2)
        assert torch.equal(out.cpu(), expected)
