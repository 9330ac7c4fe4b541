#!/usr/bin/python3
# test: timeout=1800 needs=python3-torch,python3-torchvision
"""A MoCo v2 training step against PyTorch on the same cores, f32: resnet18 (cifar stem, 32x32, batch 256) and resnet50 (224x224, batch 32).

A step is: moving average of the key encoder, keys without gradient, queries, InfoNCE with a queue of 16384, backward, SGD. Data are synthetic on both sides.
The two programs alternate, three rounds each; the best step of each counts. PyTorch runs in the faster of its two memory formats. Peak memory is the
process's high-water mark, for PyTorch less what importing it takes.
"""
import os
import re
import resource
import subprocess
import sys
import time

BUILD = os.environ.get("HIRL_BUILD", "build/release")
CASES = {"step_resnet18": ("resnet18", "cifar", 32, 256, 3), "step_resnet50": ("resnet50", "imagenet", 224, 32, 3)}


def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def peer(backbone, stem, size, batch, steps, channels_last):
    import torch
    import torch.nn as nn
    import torch.nn.functional as F
    import torchvision

    base = peak_mib()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))

    def encoder():
        net = getattr(torchvision.models, backbone)()
        if stem == "cifar":
            net.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
            net.maxpool = nn.Identity()
        d = net.fc.in_features
        net.fc = nn.Sequential(nn.Linear(d, d), nn.ReLU(inplace=True), nn.Linear(d, 128))
        return net.to(memory_format=torch.channels_last) if channels_last else net

    q_net, k_net = encoder(), encoder()
    for p in k_net.parameters():
        p.requires_grad = False
    queue = F.normalize(torch.randn(128, 16384), dim=0)
    optimizer = torch.optim.SGD(q_net.parameters(), lr=0.03, momentum=0.9, weight_decay=1e-4)
    views = [torch.randn(batch, 3, size, size) for _ in range(2)]
    if channels_last:
        views = [v.contiguous(memory_format=torch.channels_last) for v in views]
    target = torch.zeros(batch, dtype=torch.long)
    seconds = []
    for i in range(steps + 1):
        start = time.perf_counter()
        with torch.no_grad():
            for p, q in zip(k_net.parameters(), q_net.parameters()):
                p.mul_(0.999).add_(q, alpha=0.001)
            k = F.normalize(k_net(views[1]), dim=1)
        q = F.normalize(q_net(views[0]), dim=1)
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue], 1) / 0.2
        loss = F.cross_entropy(logits, target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        queue[:, :batch] = k.T
        if i > 0:
            seconds.append(time.perf_counter() - start)
    print(f"step_seconds = {min(seconds):.6f}\npeak_mib = {peak_mib() - base:.1f}")


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return {k: float(v) for k, v in re.findall(r"(\w+) = ([\d.]+)", done.stdout)}


def main():
    for name, case in CASES.items():
        args = [str(a) for a in case]
        ours, theirs = [], {"0": [], "1": []}
        for _ in range(3):
            ours.append(run([f"{BUILD}/bench/step"] + args))
            for fmt in theirs:
                theirs[fmt].append(run([sys.executable, __file__, "--peer"] + args + [fmt]))
        best = {fmt: min(r["step_seconds"] for r in runs) for fmt, runs in theirs.items()}
        fmt = min(best, key=best.get)
        mine = min(r["step_seconds"] for r in ours)
        bf16 = run([f"{BUILD}/bench/step"] + args + ["bf16"])["step_seconds"]
        print(f"bench: {name} ours = {mine:.4f} peer = {best[fmt]:.4f} ratio = {best[fmt] / mine:.2f} unit = s")
        print(f"bench: {name}_bf16 ours = {bf16:.4f} peer = {best[fmt]:.4f} ratio = {best[fmt] / bf16:.2f} unit = s")
        if name == "step_resnet50":
            memory = min(r["peak_mib"] for r in ours)
            # each format's memory at its own least; the smaller one is the peer
            peer_memory = min(min(r["peak_mib"] for r in runs) for runs in theirs.values())
            print(f"bench: peak_memory ours = {memory:.0f} peer = {peer_memory:.0f} ratio = {peer_memory / memory:.2f} unit = MiB")
        sys.stdout.flush()


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "--peer":
        a = sys.argv[2:]
        peer(a[0], a[1], int(a[2]), int(a[3]), int(a[4]), a[5] == "1")
    else:
        main()
