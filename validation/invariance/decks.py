# test: alone=no timeout=200 needs=python3-h5py,dataset-fashion-mnist
"""A run can be repeated from the files in its folder: deck.full.nml and deck.short.nml, and the
deck kept in the checkpoint, resolve to the same values and give the same bits. A run that refuses
a deck keeps its own."""

import os

import h5py

from whole_run import (
    check,
    check_same_bits,
    check_same_metrics,
    checkpoint_path,
    expect,
    finish,
    hirl,
    prepare,
)

STEPS = 10
# Lists, quotes, reals without a short decimal form, a base deck, overrides of both kinds.
CHILD = """&run base = 'deck.nml', seed = 7, output = 'it''s a run' /
&views crop_scale_min = 0.1, 0.30000000000000004, blur_prob = 2*0.5, crop_size = 2*16 /
&hirl num_cluster = 16, 4, cluster_warmup_epoch = 0 /
&schedule epochs = 1.25, shape = 'step', step_epochs = 0.25, 1, step_factor = 0.3333333333333333 /
"""


def values(path, *overrides):
    return expect(hirl("--print-values", path, *overrides), 0).text


def read(path):
    with open(path) as file:
        return file.read()


prepare()
with open("child.nml", "w") as file:
    file.write(CHILD)
expect(hirl("child.nml", "optim%nesterov=T", "data%mean=.25"), 0)
folder = "it's a run"
wanted = values("child.nml", "optim%nesterov=T", "data%mean=.25")
check(
    "run%seed = 7\n" in wanted and "optim%nesterov" in wanted, "--print-values prints what was set"
)
with h5py.File(checkpoint_path(folder, STEPS)) as file, open("ckpt.nml", "w") as deck:
    text = file.attrs["deck"]
    deck.write(text.decode() if isinstance(text, bytes) else text)

for name, path in (
    ("full", os.path.join(folder, "deck.full.nml")),
    ("short", os.path.join(folder, "deck.short.nml")),
    ("checkpoint", "ckpt.nml"),
):
    found = [line for line in values(path).splitlines() if not line.startswith("run%base")]
    differ = [
        line
        for line in wanted.splitlines()
        if not line.startswith("run%base") and line not in found
    ]
    check(
        not differ and found,
        "%s deck: all %d values are the same%s"
        % (name, len(found), "; but " + differ[0] if differ else ""),
    )
    expect(hirl(path, "run%%output='again_%s'" % name), 0)
    check_same_bits("%s deck" % name, folder, "again_" + name, STEPS)
    check_same_metrics("%s deck" % name, folder, "again_" + name)
    # and a resolved deck resolves to itself
    expect(hirl("--check", os.path.join("again_" + name, "deck.short.nml")), 0)
check(
    len(read(os.path.join(folder, "deck.short.nml")))
    < 0.5 * len(read(os.path.join(folder, "deck.full.nml"))),
    "the short deck is short",
)

files = ("deck.full.nml", "deck.short.nml", "metrics.jsonl")
before = [read(os.path.join(folder, name)) for name in files]
for change in (
    "run%seed=8",
    "hirl%num_cluster=16,4,2",
    "mocov2%queue=64",
    "checkpoint%restart='none'",
    "optim%batch=16",
    "run%hierarchy='none'",
):
    expect(hirl("child.nml", "optim%nesterov=T", "data%mean=.25", change), 1)
check(
    before == [read(os.path.join(folder, name)) for name in files],
    "refused decks leave the run's files as they were",
)
finish()
