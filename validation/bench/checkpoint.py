#!/usr/bin/python3
# test: timeout=600 needs=python3-torch,python3-torchvision,dataset-fashion-mnist
"""What a checkpoint costs the training: seconds that it waits for one of a MoCo v2 run with ResNet-50 (query, key, momentum, a queue of 65536 x 128: 330 MiB).
The peer writes the same tensors as PyTorch scripts do, torch.save in the training loop, here with the fsync without which a crash may leave nothing. `stall`
is the share of a minute that one checkpoint a minute takes; the bound is 1 %.
"""
import os
import re
import subprocess
import sys
import tempfile
import time

PROGRAM = os.environ.get("HIRL_X", "./hirl.x")
EVERY = 8  # steps between checkpoints: the one before is on disk by then
N = 4


def peer(path):
    import torch
    import torchvision

    query, key = (torchvision.models.resnet50() for _ in range(2))
    for net in (query, key):
        net.fc = torch.nn.Sequential(torch.nn.Linear(2048, 2048), torch.nn.ReLU(), torch.nn.Linear(2048, 128))
    momentum = [torch.zeros_like(p) for p in query.parameters()]
    state = {"q": query.state_dict(), "k": key.state_dict(), "m": momentum, "queue": torch.randn(65536, 128)}
    seconds = []
    for _ in range(N):
        start = time.perf_counter()
        with open(path, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)[N // 2]


def ours(folder):
    subprocess.run([PROGRAM, "input/fashion_mnist_pack.nml", f"pack%output={folder}/shards"], check=True, capture_output=True)
    done = subprocess.run([PROGRAM, "input/demo.nml", f"run%output={folder}/run", f"data%train={folder}/shards/train-*.h5", "data%val=",
                           "run%hierarchy=none", "model%backbone=resnet50", "model%width=64", "model%stages=4", "mocov2%queue=65536",
                           f"run%max_steps={EVERY * N + 1}", f"checkpoint%every_steps={EVERY}", "run%log_level=debug"],
                          capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stdout + done.stderr)
    text = done.stdout + done.stderr
    stalls = [float(x) for x in re.findall(r"stall_seconds = ([\d.]+)", text)]
    written = float(re.search(r"checkpoints +\d+, ([\d.]+) s in the background", text).group(1)) / (N + 1)
    size = max(os.path.getsize(f"{folder}/run/checkpoints/{name}") for name in os.listdir(f"{folder}/run/checkpoints"))
    return sorted(stalls)[len(stalls) // 2], written, size / 2**20


with tempfile.TemporaryDirectory() as folder:
    mine, written, size = ours(folder)
    theirs = peer(folder + "/peer.pt")
    print(f"bench: checkpoint_wait ours = {mine:.3f} peer = {theirs:.3f} ratio = {theirs / mine:.2f} unit = s")
    print(f"bench: checkpoint_stall ours = {100 * mine / 60:.3f} peer = {100 * theirs / 60:.3f} ratio = {theirs / mine:.2f} unit = %")
    print(f"checkpoint: {size:.0f} MiB, {written:.2f} s in the background")
