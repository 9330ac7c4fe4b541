"""Attention and its gradients by PyTorch's autograd in float64, for t117_attention.c.

Made with torch 1.13.0. usage: make_reference.py > case.f64
Raw float64, one array after the other, in the order of `out` below. B = 4 problems of H = 2 heads
with D = 24 columns, 5 queries, 7 keys; scale 0.3; bias [H, 5, 7]; two masks [2, 5, 7], that of
problem b being b mod 2, with one -inf in each row. Inputs are multiples of 1/16, which bf16 holds
too. q, k and v are matrices of rows [problem, query or key] and columns [head, D].
"""
import sys

import torch

B, H, D, NQ, NK, W = 4, 2, 24, 5, 7, 2
generator = torch.Generator().manual_seed(20240229)


def draw(*shape):
    return torch.randint(-32, 33, shape, generator=generator).double() / 16


def split(x, n):
    return x.reshape(B, n, H, D).permute(0, 2, 1, 3)


q, k, v, bias = draw(B * NQ, H * D), draw(B * NK, H * D), draw(B * NK, H * D), draw(H, NQ, NK)
mask, dy = draw(W, NQ, NK), draw(B * NQ, H * D)
for w in range(W):
    for i in range(NQ):
        mask[w, i, (3 * w + 2 * i) % NK] = -float("inf")
leaves = [x.requires_grad_() for x in (q, k, v, bias)]
score = 0.3 * split(q, NQ) @ split(k, NK).transpose(-2, -1)
score = score + bias + mask.repeat(B // W, 1, 1)[:, None]
heads = torch.softmax(score, -1) @ split(v, NK)
y = heads.permute(0, 2, 1, 3).reshape(B * NQ, H * D)
grad = torch.autograd.grad(y, leaves, dy)
out = [q, k, v, bias, mask, dy, y, torch.logsumexp(score, -1), *grad]
sys.stdout.buffer.write(b"".join(x.detach().contiguous().numpy().tobytes() for x in out))
