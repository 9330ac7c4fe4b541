#!/usr/bin/python3
"""One MoCo v2 and one HIRL-MoCo v2 training step in plain PyTorch, written from the papers: what task 'probe' must reproduce.

Writes <case>_input.h5 (views, indices, clustering, draws), <case>_init.h5 (weights, queue) and <case>_expected.h5
(losses, embeddings, gradients, updated state) for each case. Float64 throughout, stored as float32, so that the
stored numbers carry no rounding of their own; the seed is fixed and stored with the versions.

usage: make_reference.py [FOLDER]
"""
import sys

import h5py
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

SEED = 20221122
MOMENTUM, TEMPERATURE, DIM = 0.99, 0.2, 16
LR, SGD_MOMENTUM, WEIGHT_DECAY = 0.05, 0.9, 1e-4

CASES = {
    # basic blocks, small-image stem, hierarchy of three levels, statistics over half batches
    "hirl_basic": dict(bottleneck=False, blocks=(1, 1, 1, 1), width=8, stem="cifar", channels=1, batch=8, group=4, sizes=(12, 12),
                       queue=32, levels=(12, 6, 3), negatives=10, local=None),
    # bottlenecks, large-image stem, two local crops, whole-batch statistics
    "moco_bottleneck": dict(bottleneck=True, blocks=(3, 4, 6, 3), width=4, stem="imagenet", channels=1, batch=8, group=0,
                            sizes=(40, 40, 33, 24), queue=16, levels=None, negatives=0, local="sum"),
}


class GroupNormed(nn.Module):
    """Batch norm whose statistics are over groups of consecutive samples; running statistics move by the groups' mean."""

    def __init__(self, channels, group):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels).uniform_(0.5, 1.5))
        self.bias = nn.Parameter(torch.empty(channels).uniform_(-0.5, 0.5))
        self.register_buffer("running_mean", torch.empty(channels).uniform_(-0.1, 0.1))
        self.register_buffer("running_var", torch.empty(channels).uniform_(0.9, 1.1))
        self.group = group

    def forward(self, x):
        size = self.group or x.shape[0]
        out, means, variances = [], [], []
        axes = [0] + list(range(2, x.dim()))
        shape = [1, -1] + [1] * (x.dim() - 2)
        for part in x.split(size):
            count = part.numel() / part.shape[1]
            mean = part.mean(axes)
            var = ((part - mean.view(shape)) ** 2).mean(axes)
            out.append((part - mean.view(shape)) / torch.sqrt(var.view(shape) + 1e-5))
            means.append(mean.detach())
            variances.append(var.detach() * count / (count - 1))
        self.running_mean.mul_(0.9).add_(0.1 * torch.stack(means).mean(0))
        self.running_var.mul_(0.9).add_(0.1 * torch.stack(variances).mean(0))
        return torch.cat(out) * self.weight.view(shape) + self.bias.view(shape)


def conv(i, o, k, stride):
    return nn.Conv2d(i, o, k, stride, k // 2, bias=False)


class Block(nn.Module):
    def __init__(self, i, width, o, stride, bottleneck, group):
        super().__init__()
        widths = [i, width, width, o] if bottleneck else [i, width, o]
        kernels = [1, 3, 1] if bottleneck else [3, 3]
        self.n = len(kernels)
        for j, k in enumerate(kernels):
            s = stride if j == (1 if bottleneck else 0) else 1
            setattr(self, f"conv{j + 1}", conv(widths[j], widths[j + 1], k, s))
            setattr(self, f"bn{j + 1}", GroupNormed(widths[j + 1], group))
        if bottleneck:  # a tame residual branch keeps 16 blocks well conditioned, so that float32 can be compared at 1e-4
            getattr(self, f"bn{self.n}").weight.data.mul_(0.2)
        self.downsample = None
        if stride != 1 or i != o:
            self.downsample = nn.Sequential(conv(i, o, 1, stride), GroupNormed(o, group))

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        for j in range(self.n):
            x = getattr(self, f"bn{j + 1}")(getattr(self, f"conv{j + 1}")(x))
            if j == self.n - 1:
                x = x + shortcut
            x = F.relu(x)
        return x


class Encoder(nn.Module):
    def __init__(self, case):
        super().__init__()
        w, group, expansion = case["width"], case["group"], 4 if case["bottleneck"] else 1
        self.pool = case["stem"] == "imagenet"
        self.conv1 = conv(case["channels"], w, 7, 2) if self.pool else conv(case["channels"], w, 3, 1)
        self.bn1 = GroupNormed(w, group)
        i = w
        for stage, n in enumerate(case["blocks"]):
            blocks = []
            for b in range(n):
                width = w << stage
                blocks.append(Block(i, width, width * expansion, 2 if b == 0 and stage > 0 else 1, case["bottleneck"], group))
                i = width * expansion
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Sequential(nn.Linear(i, i), nn.ReLU(), nn.Linear(i, DIM))

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        if self.pool:
            x = F.max_pool2d(x, 3, 2, 1)
        for stage in range(4):
            x = getattr(self, f"layer{stage + 1}")(x)
        return self.fc(x.mean((2, 3)))


def semantic_loss(levels, centroids, positive, negative):
    """Product of (1 + cosine) / 2 along a path; positives pulled, true negatives pushed (HIRL, eq. 3-5)."""
    eps = 1e-6
    plus = torch.ones(positive.shape[0])
    minus = torch.ones(negative.shape[:2])
    for l, (s, c) in enumerate(zip(levels, centroids)):
        s, c = F.normalize(s, dim=1), F.normalize(c, dim=1)
        plus = plus * (1 + (s * c[positive[:, l]]).sum(1)) / 2
        minus = minus * (1 + (s[:, None] * c[negative[:, :, l]]).sum(2)) / 2
    true = (negative != positive[:, None]).any(2).double()
    push = (true * -torch.log(1 - minus + eps)).sum(1) / (true.sum(1) + eps)
    return ((-torch.log(plus + eps) + push) / 2).mean()


def model_state(prefix, module):
    return {prefix + name: value.detach().clone() for name, value in module.state_dict().items()}


def write(path, arrays):
    with h5py.File(path, "w") as file:
        for name, value in arrays.items():
            value = value.detach().numpy() if torch.is_tensor(value) else np.asarray(value)
            file[name] = value.astype(np.float32) if value.dtype == np.float64 else value
        file.attrs["seed"] = SEED
        file.attrs["versions"] = f"torch {torch.__version__}, numpy {np.__version__}, h5py {h5py.__version__}"


def run(name, case, folder):
    torch.manual_seed(SEED)
    torch.set_default_dtype(torch.float64)
    query, key = Encoder(case), Encoder(case)
    for module in (query, key):
        # weights as a float32 file can hold them
        module.load_state_dict({k: v.float().double() for k, v in module.state_dict().items()})
    f32 = lambda x: x.float().double()
    batch = case["batch"]
    views = [f32(torch.randn(batch, case["channels"], s, s)) for s in case["sizes"]]
    queue = f32(F.normalize(torch.randn(case["queue"], DIM), dim=1))
    shuffle = torch.randperm(batch)
    index = torch.arange(batch) * 2 + 1
    n_samples = 2 * batch + 4
    inputs = {f"/views/{v}": x for v, x in enumerate(views)}
    inputs["/index"] = index
    inputs["/draw/shuffle"] = shuffle
    init = {f"/model/{k}": v for k, v in {**model_state("encoder_q.", query), **model_state("encoder_k.", key)}.items()}
    init["/method/queue"] = queue
    trained = {f"encoder_q.{k}": p for k, p in query.named_parameters()}
    projections = []
    if case["levels"]:
        for l, k in enumerate(case["levels"]):
            head = nn.Sequential(nn.Linear(DIM, DIM, bias=False), GroupNormed(DIM, case["group"]), nn.ReLU(), nn.Linear(DIM, DIM))
            head.load_state_dict({n: v.float().double() for n, v in head.state_dict().items()})
            projections.append(head)
            init.update({f"/model/{n}": v for n, v in model_state(f"projection.{l}.", head).items()})
            trained.update({f"projection.{l}.{n}": p for n, p in head.named_parameters()})
        centroids = [f32(F.normalize(torch.randn(k, DIM), dim=1)) for k in case["levels"]]
        parents = [torch.randint(b, (a,)) for a, b in zip(case["levels"], case["levels"][1:])]
        assign = [torch.randint(case["levels"][0], (n_samples,))]
        for p in parents:
            assign.append(p[assign[-1]])
        negative = [torch.randint(case["levels"][0], (batch, case["negatives"]))]
        negative[0][0, 0] = assign[0][index[0]]  # a false negative must be left out
        for p in parents:
            negative.append(p[negative[-1]])
        for l, c in enumerate(centroids):
            inputs[f"/hierarchy/centroid/{l}"] = c
            inputs[f"/hierarchy/assign/{l}"] = assign[l].int()
        for l, p in enumerate(parents):
            inputs[f"/hierarchy/parent/{l}"] = p.int()
        inputs["/draw/negative_path"] = torch.stack(negative, 2).int()

    # the step: moving average, keys in shuffled order, queries, losses
    expected = {}
    with torch.no_grad():
        for p, q in zip(key.parameters(), query.parameters()):
            p.copy_(MOMENTUM * p + (1 - MOMENTUM) * q)
        shuffled = F.normalize(key(views[1][shuffle]), dim=1)
        k = torch.empty_like(shuffled)
        k[shuffle] = shuffled
    losses = {}
    for v in [0] + list(range(2, len(views))):
        z = query(views[v])
        q = F.normalize(z, dim=1)
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], 1) / TEMPERATURE
        losses["moco" if v == 0 else f"moco_local{v - 2}"] = F.cross_entropy(logits, torch.zeros(batch, dtype=torch.long))
        if v == 0:
            embedding = z
            expected.update({"/embedding/cnn": z, "/embedding/q": q, "/embedding/k": k})
    if case["levels"]:
        losses["semantic"] = semantic_loss([head(embedding) for head in projections], centroids,
                                           torch.stack([a[index] for a in assign], 1), torch.stack(negative, 2))
    total = sum(losses.values())
    total.backward()
    for name_, value in losses.items():
        expected[f"/loss/{name_}"] = value
    expected["/loss/total"] = total
    for name_, p in trained.items():
        expected[f"/grad/{name_}"] = p.grad
    torch.optim.SGD(list(trained.values()), lr=LR, momentum=SGD_MOMENTUM, weight_decay=WEIGHT_DECAY).step()
    after = {**model_state("encoder_q.", query), **model_state("encoder_k.", key)}
    for l, head in enumerate(projections):
        after.update(model_state(f"projection.{l}.", head))
    expected.update({f"/after/{n}": v for n, v in after.items()})
    queue = queue.clone()
    queue[:batch] = k
    expected["/after/queue"] = queue
    write(f"{folder}/{name}_input.h5", inputs)
    write(f"{folder}/{name}_init.h5", init)
    write(f"{folder}/{name}_expected.h5", expected)
    print(name, "n_samples", n_samples, {n: float(v) for n, v in losses.items()})


if __name__ == "__main__":
    for case_name, case_ in CASES.items():
        run(case_name, case_, sys.argv[1] if len(sys.argv) > 1 else ".")
