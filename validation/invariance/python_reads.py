# test: alone=no timeout=200 needs=python3-h5py,python3-torch,python3-torchvision,dataset-fashion-mnist
"""What comes out can be used elsewhere: three lines of h5py read the encoder's weights, which
torchvision's ResNet takes by name; --inspect and the task say what a checkpoint and a shard hold,
and leave them alone."""

import hashlib

import h5py
import torch
import torchvision

from whole_run import check, checkpoint_path, expect, finish, hirl, prepare


def digest(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def weights(path):
    """As a user would."""
    with h5py.File(path) as file:
        model = file["model"]
        return {
            name[10:]: torch.from_numpy(model[name][()])
            for name in model
            if name.startswith("encoder_q.")
        }


prepare()
expect(
    hirl(
        "deck.nml",
        "model%backbone='resnet18'",
        "model%stem='imagenet'",
        "data%channels=3",
        "run%max_steps=9",
    ),
    0,
)
path = checkpoint_path("run", 9)

state = weights(path)
resnet = torchvision.models.ResNet(
    torchvision.models.resnet.BasicBlock, [2, 2, 2, 2], width_per_group=64
)
wanted = {
    name: tuple(value.shape)
    for name, value in resnet.state_dict().items()
    if "num_batches" not in name and not name.startswith("fc.")
}
missing = [name for name in wanted if name not in state]
extra = [name for name in state if name not in wanted and not name.startswith("fc.")]
check(
    not missing and not extra,
    "torchvision's names, no more and no less (%d)%s"
    % (len(wanted), "" if not missing + extra else "; not so: %s %s" % (missing, extra)),
)
ratios = {
    name: tuple(w / s for w, s in zip(shape, state[name].shape))
    for name, shape in wanted.items()
    if name in state
}
check(
    all(set(r) <= {1.0, 8.0} for r in ratios.values()),
    "torchvision's shapes, at an eighth of the width",
)
check(all(torch.isfinite(value).all() for value in state.values()), "all weights are finite")

for what, file, words in (
    (
        "checkpoint",
        path,
        [
            "step = 9",
            "epoch = 1",
            "method = mocov2",
            "hierarchy = hirl",
            "/model/encoder_q.conv1.weight",
            "[8, 3, 7, 7]",
            "/hierarchy/assign/0",
            "272",
            "num_cluster",
        ],
    ),
    ("shard", "data/train-00000.h5", ["train", "272", "raw"]),
):
    before = digest(file)
    text = expect(hirl("--inspect", file), 0).text
    lacking = [word for word in words if word not in text]
    check(
        not lacking,
        "--inspect of a %s tells all%s" % (what, "" if not lacking else "; not: %s" % lacking),
    )
    task = expect(hirl("deck.nml", "run%task='inspect'", "inspect%%path='%s'" % file), 0).text
    check(
        task.count(text.splitlines()[0]) == 1 and text in task,
        "task inspect prints the same of a %s, once" % what,
    )
    check(digest(file) == before, "the %s stays as it was" % what)
finish()
