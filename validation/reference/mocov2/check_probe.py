#!/usr/bin/python3
# test: alone=no timeout=300 needs=python3-h5py
"""Task 'probe' against the PyTorch step of make_reference.py: losses, embeddings, gradients, updated weights and queue.

Each case runs on 1, 2 and 4 ranks and on the backends cpu and ref. Bound: 1e-4 of the tensor's largest magnitude. A float32 forward
and backward pass of this depth carries about sqrt(1000) * 6e-8 = 2e-6 relative rounding per layer chain, amplified by batch
norm over few samples; a wrong formula shows as 1e-2 or more.
"""
import os
import subprocess
import sys

import h5py
import numpy as np

BOUND = 1e-4
HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAM = os.environ.get("HIRL_X", "./hirl.x")
MPIRUN = os.environ.get("HIRL_MPIRUN", "mpirun --oversubscribe").split()
FOLDER = os.environ.get("HIRL_TMP", "/tmp")

CASES = {
    "hirl_basic": ["run%hierarchy='hirl'", "model%backbone='resnet10'", "model%stem='cifar'", "model%width=8", "model%bn_group=4",
                   "optim%batch=8", "views%crop_size=12", "mocov2%queue=32", "hirl%num_cluster=12,6,3", "hirl%num_neg_path=10",
                   "probe%n_samples=20"],
    "moco_bottleneck": ["run%hierarchy='none'", "model%backbone='resnet50'", "model%stem='imagenet'", "model%width=4",
                        "model%bn_group=0", "optim%batch=8", "views%crop_size=40,40,33,24", "mocov2%queue=16",
                        "mocov2%local_weight='sum'", "probe%n_samples=20"],
}
COMMON = ["run%task='probe'", "run%method='mocov2'", "mocov2%dim=16", "mocov2%momentum=0.99", "mocov2%temperature=0.2",
          "optim%lr=0.05", "optim%lr_rule='none'", "optim%momentum=0.9", "optim%weight_decay=1e-4"]


def arrays(path):
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.__setitem__("/" + name, item[()]) if isinstance(item, h5py.Dataset) else None)
    return found


def compare(label, expected, got):
    worst, where, n_bad = 0.0, "", 0
    for name, want in expected.items():
        if name not in got:
            print(f"{label}: {name} is missing")
            n_bad += 1
            continue
        have = got[name]
        if np.shape(have) != np.shape(want):
            print(f"{label}: {name} has shape {np.shape(have)}, expected {np.shape(want)}")
            n_bad += 1
            continue
        scale = max(float(np.abs(want).max()), 1e-6)
        error = float(np.abs(np.asarray(have, np.float64) - want).max()) / scale
        if not error <= BOUND:
            print(f"{label}: {name} differs by {error:.2e} of {scale:.3g}")
            n_bad += 1
        if error > worst:
            worst, where = error, name
    extra = [n for n in got if n.startswith("/grad/") and n not in expected]
    if extra:
        print(f"{label}: gradients nobody expects: {extra[:3]}")
        n_bad += 1
    print(f"{label}: {len(expected)} tensors, worst {worst:.2e} at {where}")
    return n_bad


def main():
    n_bad = 0
    deck = os.path.join(FOLDER, "probe.nml")
    with open(deck, "w") as file:
        file.write("&run\n/\n&probe\n/\n")
    for name, settings in CASES.items():
        expected = arrays(os.path.join(HERE, f"{name}_expected.h5"))
        for device, ranks in (("cpu", 1), ("ref", 1), ("cpu", 2), ("cpu", 4)):
            if device == "ref" and name != "hirl_basic":
                continue  # the same operations, minutes long
            output = os.path.join(FOLDER, f"{name}_{device}_{ranks}.h5")
            launch = MPIRUN + ["-n", str(ranks)] if ranks > 1 else []
            command = launch + [PROGRAM, deck] + COMMON + settings + [
                f"run%device='{device}'", f"probe%input='{HERE}/{name}_input.h5'", f"probe%output='{output}'",
                f"checkpoint%init_from='{HERE}/{name}_init.h5'"]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                print(f"{name} on {device} x {ranks}: exit {done.returncode}\n{done.stdout}{done.stderr}")
                n_bad += 1
                continue
            n_bad += compare(f"{name} on {device} x {ranks}", expected, arrays(output))
    return 1 if n_bad else 0


if __name__ == "__main__":
    sys.exit(main())
