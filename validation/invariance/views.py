# test: alone=no timeout=300 backends=cpu,cuda needs=python3-h5py,dataset-fashion-mnist
"""Views made by the backend and views made by the loader's threads train to the same bits: two
crops and local crops with every operation, accumulated micro-batches, one rank and two (whose keys
are shuffled between them, on one device and on two), and a run that is stopped in the middle of an
epoch and goes on; and views with RandAugment and all else that &views can ask for, cut from resized
images."""

import os
import sys

import whole_run
from whole_run import (
    check,
    check_far,
    check_same_bits,
    environment,
    expect,
    finish,
    hirl,
    prepare,
)

BACKEND = sys.argv[1] if len(sys.argv) > 1 else "cpu"
PROGRAM = os.environ.get("HIRL_X_EMULATED") if BACKEND == "cuda" else None
N_STEPS = 6
KEYS = (
    "run%%device='%s'" % BACKEND,
    "run%hierarchy='none'",
    "data%channels=3",
    "data%val=''",
    "data%n_threads=2",
    "views%crop_size=16,16,8",
    "views%interpolation='bicubic'",
    "views%saturation=0.4",
    "views%hue=0.2",
    "views%gray_prob=0.2",
    "views%blur_prob=0.5",
    "views%solarize_prob=0.2",
    "model%width=4",
    "optim%accumulate=2",
    "schedule%%epochs=%g" % (N_STEPS / whole_run.N_BATCHES),
    "checkpoint%every_steps=1",
)
# Beside or instead of those.
RARER_KEYS = (
    "views%crop='resize_random'",
    "views%resize=24",
    "views%padding=4",
    "views%rand_augment=2",
    "views%rand_augment_prob=0.9",
    "views%rotate_degrees=0,5,0",
    "views%gray_first=T",
    "views%posterize_prob=0.2",
    "views%autocontrast_prob=0.2",
    "views%equalize_prob=0.2",
    "views%lighting_std=0.1",
    "views%erase_prob=0.5",
    "run%max_steps=3",
)
MADE_BY = {"loader": "made by the loader's threads", "backend": "made by the backend"}


def train(folder, maker, ranks, *more, n_devices=1):
    result = hirl(
        "deck.nml",
        *KEYS,
        "run%%output='%s'" % folder,
        "run%%allow_gpu_sharing=%s" % ("T" if n_devices < ranks else "F"),
        "views%%maker='%s'" % maker,
        *more,
        ranks=ranks,
        program=PROGRAM or whole_run.HIRL,
        env=environment(HIRL_EMU_DEVICES=str(n_devices))
    )
    expect(result, 0)
    if maker in MADE_BY:
        check(MADE_BY[maker] in result.text, "%s: views are %s" % (folder, MADE_BY[maker]))
    return result


def compare(what, ranks, n_devices, *more, last=N_STEPS):
    for maker in MADE_BY:
        train("%s_%s" % (maker, what), maker, ranks, *more, n_devices=n_devices)
    for step in (1, last):
        check_same_bits(what, "loader_" + what, "backend_" + what, step)


prepare()
compare("one", 1, 1)
compare("two", 2, 1)  # keys go from rank to rank by way of the host
train("stopped", "backend", 2, "run%max_steps=3")
train("stopped", "backend", 2)
check_same_bits("restart", "loader_two", "stopped", N_STEPS)
if PROGRAM:
    compare("devices", 2, 2)  # from device to device
compare("rarer", 1, 1, *RARER_KEYS, last=3)
auto = train("auto", "auto", 1, "run%max_steps=1")
wanted = MADE_BY["backend" if BACKEND == "cuda" else "loader"]
check(wanted in auto.text, "auto: views are %s" % wanted)
train("other", "backend", 1, "run%max_steps=1", "views%brightness=0.8")
check_far("another brightness", "backend_one", "other")
finish()
