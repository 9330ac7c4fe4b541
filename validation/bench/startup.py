#!/usr/bin/python3
# test: timeout=300 needs=python3-torch,python3-torchvision,dataset-fashion-mnist
"""From the command to the first training step on 1000 images of 28x28 (ResNet-18, cifar stem, batch 64): wall seconds until the step begins (`startup`)
and until it has ended (`first_step`), taken from outside when each program's line about it arrives. The peer is a minimal PyTorch script that reads the
same images and does the same step. Five runs each, alternating; the best counts. The bound for `startup` is 1 s; a step alone takes about that long.
"""
import gzip
import os
import struct
import subprocess
import sys
import tempfile
import time

PROGRAM = os.environ.get("HIRL_X", "./hirl.x")
SOURCE = "/usr/share/datasets/fashion-mnist/train-%s-ubyte.gz"
N = 1000


def peer(folder):
    import numpy as np
    import torch
    import torch.nn as nn
    import torch.nn.functional as F
    import torchvision
    from torchvision import transforms as T
    from PIL import Image

    torch.set_num_threads(2)
    raw = np.frombuffer(open(folder + "/train-images-idx3-ubyte", "rb").read()[16:], np.uint8).reshape(N, 28, 28)
    augment = T.Compose([T.RandomResizedCrop(28, (0.2, 1)), T.RandomHorizontalFlip(), T.ToTensor(), T.Normalize(0.5, 0.5)])
    views = [torch.stack([augment(Image.fromarray(raw[i])) for i in range(64)]) for _ in range(2)]

    def encoder():
        net = torchvision.models.resnet18()
        net.conv1, net.maxpool = nn.Conv2d(1, 64, 3, 1, 1, bias=False), nn.Identity()
        net.fc = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 128))
        return net

    q_net, k_net = encoder(), encoder()
    queue = F.normalize(torch.randn(128, 4096), dim=0)
    optimizer = torch.optim.SGD(q_net.parameters(), lr=0.03, momentum=0.9)
    print("training", flush=True)
    with torch.no_grad():
        k = F.normalize(k_net(views[1]), dim=1)
    q = F.normalize(q_net(views[0]), dim=1)
    loss = F.cross_entropy(torch.cat([(q * k).sum(1, keepdim=True), q @ queue], 1) / 0.2, torch.zeros(64, dtype=torch.long))
    loss.backward()
    optimizer.step()
    print("step = 1", flush=True)


def seconds(command):
    """Seconds until the line that begins with 'training' and the one that begins with 'step = 1'."""
    start, at = time.perf_counter(), {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        text = ""
        for line in process.stdout:
            text += line
            for word in ("training", "step = 1"):
                if line.startswith(word):
                    at[word] = time.perf_counter() - start
    if process.returncode != 0 or len(at) != 2:
        sys.exit(f"{' '.join(command)}: exit {process.returncode}, lines found: {list(at)}\n{text}")
    return at["training"], at["step = 1"]


def main():
    with tempfile.TemporaryDirectory() as folder:
        images = gzip.open(SOURCE % "images-idx3").read()
        labels = gzip.open(SOURCE % "labels-idx1").read()
        with open(folder + "/train-images-idx3-ubyte", "wb") as file:
            file.write(struct.pack(">IIII", 2051, N, 28, 28) + images[16:16 + N * 784])
        with open(folder + "/train-labels-idx1-ubyte", "wb") as file:
            file.write(struct.pack(">II", 2049, N) + labels[8:8 + N])
        subprocess.run([PROGRAM, "input/fashion_mnist_pack.nml", f"pack%source={folder}", f"pack%output={folder}/shards"],
                       check=True, capture_output=True)
        ours, theirs = [], []
        for i in range(5):
            ours.append(seconds([PROGRAM, "input/demo.nml", f"run%output={folder}/run{i}", f"data%train={folder}/shards/train-*.h5", "data%val=",
                                 "run%hierarchy=none", "model%backbone=resnet18", "model%stem=cifar", "model%width=64", "model%stages=4",
                                 "optim%batch=64", "mocov2%queue=4096", "run%max_steps=1", "schedule%epochs=10"]))
            theirs.append(seconds([sys.executable, __file__, "--peer", folder]))
        for i, name in enumerate(("startup", "first_step")):
            mine, peers = min(t[i] for t in ours), min(t[i] for t in theirs)
            print(f"bench: {name} ours = {mine:.3f} peer = {peers:.3f} ratio = {peers / mine:.2f} unit = s")


if __name__ == "__main__":
    peer(sys.argv[2]) if len(sys.argv) > 2 and sys.argv[1] == "--peer" else main()
