#!/usr/bin/python3
"""A MoCo v2 training step on a GPU against PyTorch on the same card: gpu_step.py [--batch N].

ResNet-50, 224 x 224, bf16. A step is: moving average of the key encoder, keys without gradient,
queries, InfoNCE with a queue of 16384 keys, backward, SGD with momentum. PyTorch runs the same
definition (validation/reference/mocov2, on torchvision's ResNet) with autocast to bf16, images in
channels-last memory, fused SGD, cuDNN's own choice of the fastest engines, eager and compiled.
Images lie on the device before the first step of either. Ours runs with bits that repeat, as is
usual, and with run%deterministic = .false., which chooses engines as PyTorch does: the ratio that
compares like with like. The programs alternate; the best round of each counts, a round being the mean of its
steps.

Prints `row: WHAT = RESULT` lines. --emulated: both programs at sizes for a processor, no times.
"""
import argparse
import os
import re
import subprocess
import sys
import time

BUILD = os.environ.get("HIRL_BUILD", "build/release-cuda")
QUEUE, DIM, TEMPERATURE, MOMENTUM = 16384, 128, 0.2, 0.999


def peer(a):
    import torch
    import torch.nn as nn
    import torch.nn.functional as F
    import torchvision

    torch.backends.cudnn.benchmark = True
    torch.manual_seed(1)
    is_cuda = a.device == "cuda"

    def encoder():
        net = getattr(torchvision.models, a.backbone)()
        d = net.fc.in_features
        net.fc = nn.Sequential(nn.Linear(d, d), nn.ReLU(inplace=True), nn.Linear(d, DIM))
        return net.to(a.device).to(memory_format=torch.channels_last)

    q_net, k_net = encoder(), encoder()
    k_net.load_state_dict(q_net.state_dict())
    for p in k_net.parameters():
        p.requires_grad = False
    ours, theirs = list(k_net.parameters()), list(q_net.parameters())
    fused = {"fused": True} if is_cuda else {}
    optimizer = torch.optim.SGD(theirs, lr=0.03, momentum=0.9, weight_decay=1e-4, **fused)
    n_queue = QUEUE // a.batch * a.batch
    queue = F.normalize(torch.randn(DIM, n_queue, device=a.device), dim=0)
    views = [
        torch.randn(a.batch, 3, a.size, a.size, device=a.device).contiguous(
            memory_format=torch.channels_last
        )
        for _ in range(2)
    ]
    target = torch.zeros(a.batch, dtype=torch.long, device=a.device)

    def keys(x):
        with torch.no_grad(), torch.autocast(a.device, dtype=torch.bfloat16):
            return F.normalize(k_net(x).float(), dim=1)

    def loss_of(x, k, negatives):
        with torch.autocast(a.device, dtype=torch.bfloat16):
            q = F.normalize(q_net(x).float(), dim=1)
            logits = torch.cat([(q * k).sum(1, keepdim=True), q @ negatives], 1)
            return F.cross_entropy(logits.float() / TEMPERATURE, target)

    if a.peer == "compile":
        keys, loss_of = torch.compile(keys), torch.compile(loss_of)

    def step(i):
        with torch.no_grad():
            torch._foreach_mul_(ours, MOMENTUM)
            torch._foreach_add_(ours, theirs, alpha=1 - MOMENTUM)
        k = keys(views[1])
        loss = loss_of(views[0], k, queue)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        at = i * a.batch % n_queue
        queue[:, at : at + a.batch] = k.detach().T
        return loss

    wait = torch.cuda.synchronize if is_cuda else lambda: None
    for i in range(a.warm):
        step(i)
    wait()
    start = time.perf_counter()
    for i in range(a.steps):
        # the value is read in each step, as a training loop that logs it does
        loss = step(a.warm + i).item()
    wait()
    print(f"step_mean = {(time.perf_counter() - start) / a.steps:.6f}\nloss = {loss:.4f}")
    if is_cuda:
        print(f"device_mib = {torch.cuda.max_memory_allocated() / 1048576:.1f}")
    print(f"version = {torch.__version__}")


def run(command, limit):
    """Its `key = value` lines, or None and the end of what it said."""
    if limit < 10:
        return None, "no time left"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return None, f"stopped after {limit:.0f} s"
    print(f"$ {' '.join(command)}\n{done.stdout}", flush=True)
    if done.returncode != 0:
        print(done.stderr[-3000:], flush=True)
        said = (done.stderr or done.stdout).strip().splitlines() or ["nothing"]
        return None, f"exit code {done.returncode}: {said[-1][:160]}"
    return dict(re.findall(r"^(\w+) = (\S+)", done.stdout, re.M)), ""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warm", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--seconds", type=float, default=3600, help="for all of it")
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--emulated", action="store_true")
    parser.add_argument("--peer", choices=("eager", "compile"))
    a = parser.parse_args()
    if a.peer:
        peer(a)
        return 0
    if a.emulated:
        a.batch, a.steps, a.warm, a.rounds, a.size, a.backbone = 8, 2, 1, 1, 32, "resnet18"
    size, batch, steps = str(a.size), str(a.batch), str(a.steps)
    mine = [f"{BUILD}/bench/step", a.backbone, "imagenet", size, batch, steps, "bf16", "cuda"]
    other = [sys.executable, os.path.abspath(__file__), "--batch", batch, "--steps", steps]
    other += ["--warm", str(a.warm), "--size", size, "--backbone", a.backbone]
    other += ["--device", "cpu"] if a.emulated else []
    commands = {
        "hirl.x": mine + ["run%deterministic=.false."],
        "hirl.x, bits repeat": mine,
        "PyTorch, eager": other + ["--peer", "eager"],
        "PyTorch, compiled": other + ["--peer", "compile"],
    }
    what = f"MoCo v2 step, {a.backbone}, {a.size} x {a.size}, bf16, batch {a.batch}"
    best, failed = {}, {}
    end = time.monotonic() + a.seconds
    for _ in range(a.rounds):
        for name, command in commands.items():
            if name in failed:
                continue
            found, error = run(command, end - time.monotonic())
            if found is None and name not in best:
                failed[name] = error
            elif found is None:
                print(f"{name}: this round does not count: {error}")
            elif name not in best or float(found["step_mean"]) < float(best[name]["step_mean"]):
                best[name] = found
    if a.emulated:
        for name in commands:
            said = f"did not run: {failed[name]}" if name in failed else "ran"
            print(f"row: {what}, {name} = {said}; no times of an emulated device")
        return 1 if "hirl.x" in failed else 0
    speed = {}
    for name in commands:
        if name not in best:
            print(f"row: {what}, {name} = failed: {failed[name]}")
            continue
        found = best[name]
        seconds, gib = float(found["step_mean"]), float(found["device_mib"]) / 1024
        speed[name] = a.batch / seconds
        label = name.replace("PyTorch", "PyTorch " + found.get("version", ""))
        print(
            f"row: {what}, {label} = {speed[name]:.0f} images/s, {1e3 * seconds:.1f} ms, "
            f"{gib:.1f} GiB"
        )
    if "hirl.x" in best:
        upload = 1e3 * float(best["hirl.x"]["upload_seconds"])
        print(f"row: copying such views to the device, part of no step here = {upload:.1f} ms")
    peers = [speed[name] for name in speed if "PyTorch" in name]
    for name in speed if peers else ():
        if "PyTorch" not in name:
            print(f"row: {what}, {name} / the faster PyTorch = {speed[name] / max(peers):.2f}")
    return 1 if "hirl.x" in failed else 0


if __name__ == "__main__":
    sys.exit(main())
