#!/usr/bin/python3
# test: timeout=600 needs=python3-torch
"""Multi-head attention of the cpu backend (bench_ops) against PyTorch's softmax(q k^T) v on the
same two cores: forward and backward.

ViT-S (32 samples, 6 heads of 64 columns, 197 tokens) and Swin's windows (512 of 49 tokens, 4 heads
of 32, with bias). Both start from the packed output of the q|k|v product and end with y as
[B N, H D] and its gradient. The sides alternate, three rounds each; the best run of each counts.
Required: not slower than PyTorch in f32.
"""
import os
import re
import subprocess
import sys
import time

BUILD = os.environ.get("HIRL_BUILD", "build/release")
CASES = {"ViT": (32, 6, 197, 64, False), "windows": (512, 4, 49, 32, True)}
RUNS = 7


def peer(n_batch, n_heads, n, size, has_bias, dtype):
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    dtype = getattr(torch, dtype)
    x = torch.randn(n_batch, n, 3, n_heads, size).to(dtype).requires_grad_()
    bias = torch.randn(n_heads, n, n, requires_grad=True) if has_bias else None
    dy = torch.randn(n_batch, n, n_heads * size).to(dtype)
    best = [float("inf")] * 2
    for _ in range(RUNS + 1):
        x.grad = None
        start = time.perf_counter()
        q, k, v = x.permute(2, 0, 3, 1, 4).unbind(0)
        score = (q * size**-0.5) @ k.transpose(-2, -1)
        if has_bias:
            score = score + bias.to(dtype)
        y = (score.softmax(-1) @ v).transpose(1, 2).reshape(n_batch, n, n_heads * size)
        middle = time.perf_counter()
        y.backward(dy)
        end = time.perf_counter()
        best = [min(best[0], middle - start), min(best[1], end - middle)]
    print(*[f"{1e3 * t:.3f}" for t in best])


def ours(case, dtype):
    command = [f"{BUILD}/bench/bench_ops", "cpu", f"attention {case} {dtype}", str(RUNS)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [float(re.search(rf" {p} +best +([0-9.]+) ms", out)[1]) for p in ("forward", "backward")]


def main():
    for case in CASES:
        for dtype, torch_dtype in (("f32", "float32"), ("bf16", "bfloat16")):
            mine, other = [float("inf")] * 2, [float("inf")] * 2
            for _ in range(3):
                mine = [min(a, b) for a, b in zip(mine, ours(case, dtype))]
                command = [sys.executable, __file__, "--peer", case, torch_dtype]
                out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                other = [min(a, float(b)) for a, b in zip(other, out.split())]
            for phase, a, b in zip(("forward", "backward"), mine, other):
                name = f"attention_{case}_{dtype}_{phase}"
                ratio = f"ratio = {b / a:.2f} unit = ms"
                print(f"bench: {name} ours = {a:.1f} peer = {b:.1f} {ratio}")


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "--peer":
        peer(*CASES[sys.argv[2]], sys.argv[3])
    else:
        main()
