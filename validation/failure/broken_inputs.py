# test: alone=no timeout=300 needs=python3-h5py,dataset-fashion-mnist
"""What a user can get wrong, on two ranks: the job ends soon and not with 0; one message, from
one rank, says what is wrong, where, and what was expected; nothing half-written is left."""

import collections
import concurrent.futures
import os
import re
import shutil
import sys

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "invariance"))
from whole_run import (
    DECK,
    check,
    check_clean,
    error_lines,
    expect,
    finish,
    hirl,
    prepare,
    read_idx,  # noqa: E402
    write_idx,
)

LIMIT = 60  # seconds; a failure that all ranks share takes one
Case = collections.namedtuple("Case", "name args patterns make ranks keeps_checkpoints by_check")
cases = []


def case(name, args, *patterns, make=None, ranks=2, by_check=False):
    """`patterns` must all be found in the error line; `make(folder)` puts something broken into
    the case's folder. `by_check`: a rule that needs neither data nor ranks; `--check` says the same."""
    keeps_checkpoints = make in (copy_run, damaged_run, cut_run)
    cases.append(Case(name, args, patterns, make, ranks, keeps_checkpoints, by_check))


def deck(text):
    def make(folder):
        with open(os.path.join(folder, "broken.nml"), "w") as file:
            file.write(text)

    return make


def patch(group, line):
    """The deck of all tests with a line put at the start of a group."""
    assert "&" + group in DECK
    return deck(re.sub("&%s\\b" % group, "&%s\n  %s\n " % (group, line), DECK, count=1))


def copy_run(folder):
    shutil.copytree("good", os.path.join(folder, "copy"))


def change_run(folder, change):
    """Leaves a damaged checkpoint alone."""
    copy_run(folder)
    change(os.path.join(folder, "copy/checkpoints/checkpoint-00000009.h5"))
    os.remove(os.path.join(folder, "copy/checkpoints/checkpoint-00000003.h5"))


def damaged_run(folder):
    change_run(folder, flip_model_byte)


def cut_run(folder):
    change_run(folder, truncated)


# ------------------------------------------------------------------------ decks

B = ("broken.nml",)
case("no deck", ("nothing.nml",), r"nothing\.nml", r"[Nn]o such file")
case("a folder as deck", ("data",), r"data", r"directory|folder")
case("not a namelist", B, r"broken\.nml:1:", make=deck("learning rate: 0.1\n"))
case("a shard as deck", ("data/train-00000.h5",), r"train-00000\.h5:\d+:\d+: ", r"text")
case("an empty deck", B, r"broken\.nml:1:1: .*&run", make=deck(""))
case(
    "unknown group",
    B,
    r"broken\.nml:\d+:\d+: .*optin",
    r"optim",
    make=deck(DECK.replace("&optim", "&optin")),
)
case(
    "unknown key",
    B,
    r"broken\.nml:\d+:3: .*momentm",
    r"momentum",
    make=patch("optim", "momentm = 0.9"),
)
case(
    "repeated key",
    B,
    r"broken\.nml:\d+:\d+: .*batch",
    r"twice|already|again|repeat",
    make=patch("optim", "batch = 64,"),
)
case("repeated group", B, r"broken\.nml:\d+:\d+: .*knn", make=deck(DECK + "&knn k = 3 /\n"))
case(
    "text for a number",
    B,
    r"broken\.nml:\d+:\d+: .*weight_decay",
    r"real|number",
    make=patch("optim", "weight_decay = 'small'"),
)
case(
    "a real for an integer",
    B,
    r"broken\.nml:\d+:\d+: .*accumulate",
    r"integer",
    make=patch("optim", "accumulate = 1.5"),
)
case(
    "text without quotes",
    B,
    r"broken\.nml:\d+:\d+: .*device",
    r"quote|'cpu'",
    make=patch("run", "device = cpu"),
)
case(
    "out of range",
    B,
    r"broken\.nml:\d+:\d+: .*n_ahead",
    r"1 to 64",
    make=patch("data", "n_ahead = 65"),
)
case(
    "not one of the choices",
    B,
    r"broken\.nml:\d+:\d+: .*shape",
    r"cosine",
    make=patch("schedule", "shape = 'cosinus'"),
)
case(
    "too long a list",
    B,
    r"broken\.nml:\d+:\d+: .*blur_sigma|crop_ratio",
    make=patch("views", "crop_ratio = 1, 2, 3"),
)
case(
    "no end of a group",
    B,
    r"broken\.nml:\d+:\d+: ",
    r"/",
    make=deck(DECK.replace("/\n&knn", "\n&knn")),
)
case(
    "a missing base",
    B,
    r"broken\.nml|none\.nml",
    r"none\.nml",
    make=patch("run", "base = 'none.nml',"),
)
case(
    "a base that is its own",
    B,
    r"broken\.nml",
    r"itself|circle|cycl|deep|loop",
    make=patch("run", "base = 'broken.nml',"),
)
case("no lr that is a number", ("deck.nml", "optim%lr=nan"), r"optim%lr", by_check=True)
case("override of an unknown key", ("deck.nml", "optim%lrr=0.1"), r"optim%lrr", r"optim%lr\b|'lr'")
case("keys with letters swapped", ("deck.nml", "optim%rl=0.1"), r"'lr'", by_check=True)
case("an option after the deck", ("deck.nml", "--check"), r"hirl\.x --check deck\.nml")
case("override without a group", ("deck.nml", "lr=0.1"), r"lr=0\.1", r"group%key")
case("unknown task", ("deck.nml", "run%task='train'"), r"task", r"pretrain")
case("unknown method", ("deck.nml", "run%method='moco'"), r"method", r"mocov2", by_check=True)
case(
    "a required key is missing",
    ("deck.nml", "run%task='pack'"),
    r"pack%source",
    r"required|missing",
)

# ------------------------------------------------------------------------ sizes that do not fit

case(
    "batch and ranks", ("deck.nml", "optim%batch=32"), r"optim%batch = 32", r"ranks", r"3", ranks=3
)
case(
    "batch and micro-batches",
    ("deck.nml", "optim%accumulate=5"),
    r"optim%batch = 32",
    r"optim%accumulate = 5",
    by_check=True,
)
case(
    "batch, micro-batches and ranks",
    ("deck.nml", "optim%accumulate=32"),
    r"optim%batch = 32",
    r"optim%accumulate",
    r"64",
)
case(
    "batch and queue",
    ("deck.nml", "mocov2%queue=100"),
    r"mocov2%queue = 100",
    r"multiple of optim%batch = 32",
    by_check=True,
)
case(
    "batch and samples", ("deck.nml", "optim%batch=512", "mocov2%queue=512"), r"272 samples", r"512"
)
case(
    "bn_group and the batch",
    ("deck.nml", "model%bn_group=12"),
    r"model%bn_group = 12",
    r"32",
    by_check=True,
)
case(
    "bn_group and a rank's batch",
    ("deck.nml", "optim%batch=48", "mocov2%queue=96", "model%bn_group=16"),
    r"model%bn_group = 16",
    r"24",
)
case(
    "more clusters than samples",
    ("deck.nml", "hirl%num_cluster=300,8"),
    r"hirl%num_cluster\(1\) = 300",
    r"272",
)
case(
    "more clusters than below",
    ("deck.nml", "hirl%num_cluster=20,30"),
    r"hirl%num_cluster\(2\) = 30",
    r"20",
    by_check=True,
)
case(
    "more neighbours than samples, in training",
    ("deck.nml", "knn%k=3,273"),
    r"knn%k\(2\) = 273",
    r"272",
)
case(
    "more neighbours than samples",
    ("deck.nml", "knn%k=273", "run%task='knn'", "checkpoint%init_from='none'"),
    r"knn%k",
    r"273",
    r"272",
)
case(
    "one view",
    ("deck.nml", "views%crop_size=16,16,16", "views%crop_scale_min=0.2,0.3"),
    r"views%crop_scale_min",
    r"3",
)
case(
    "a view too few",
    ("deck.nml", "views%crop_size=16,8", "views%blur_prob=0.1,0.2,0.3"),
    r"views%blur_prob",
    r"2",
    by_check=True,
)
case(
    "smallest above largest",
    ("deck.nml", "views%crop_scale_min=0.9", "views%crop_scale_max=0.5"),
    r"views%crop_scale_min",
    r"0\.9|0\.5",
    by_check=True,
)
case("means of more channels", ("deck.nml", "data%mean=0.1,0.2,0.3"), r"data%mean", r"3")
case(
    "an embedding the method lacks",
    ("deck.nml", "hirl%train_emb='vit_cls'"),
    r"hirl%train_emb",
    r"vit_cls",
    by_check=True,
)
case("reference backend in bf16", ("deck.nml", "run%device='gpu'"), r"device", r"cpu")

# ------------------------------------------------------------------------ shards


def broken(change):
    """A copy of the training shard, changed."""

    def make(folder):
        os.mkdir(os.path.join(folder, "shards"))
        path = os.path.join(folder, "shards/broken-00000.h5")
        shutil.copy("data/train-00000.h5", path)
        change(path)

    return make


def truncated(path):
    os.truncate(path, os.path.getsize(path) * 2 // 3)


def overwritten(path):
    with open(path, "r+b") as file:
        file.write(b"\0" * 64)


def hdf5(change):
    def apply(path):
        with h5py.File(path, "r+") as file:
            change(file)

    return apply


def set_item(name, at, value):
    def change(file):
        array = file[name][()]
        array[at] = value
        file[name][...] = array

    return hdf5(change)


def replace_item(name, array):
    def change(file):
        del file[name]
        if array is not None:
            file[name] = array

    return hdf5(change)


def set_attribute(name, value):
    return hdf5(lambda file: file.attrs.modify(name, value))


def beside(path):
    shutil.copy("colour/train-00000.h5", os.path.join(os.path.dirname(path), "broken-00001.h5"))


S = ("deck.nml", "data%train='shards/*.h5'")
case("no shard", ("deck.nml", "data%train='shards/none-*.h5'"), r"shards/none-\*\.h5")
case("no training set", ("deck.nml", "data%train=''"), r"data%train")
case("a deck as shard", ("deck.nml", "data%train='deck.nml'"), r"deck\.nml", r"HDF5|shard")
case(
    "a checkpoint as shard",
    ("deck.nml", "data%train='good/checkpoints/checkpoint-00000003.h5'"),
    r"checkpoint-00000003\.h5",
    r"format|shard",
)
case("a truncated shard", S, r"broken-00000\.h5", make=broken(truncated))
case("a shard with its head overwritten", S, r"broken-00000\.h5", make=broken(overwritten))
case("an empty file", S, r"broken-00000\.h5", make=broken(lambda path: os.truncate(path, 0)))
case(
    "a shard without offsets",
    S,
    r"broken-00000\.h5",
    r"/offset",
    make=broken(replace_item("offset", None)),
)
case(
    "offsets beyond the data",
    S,
    r"broken-00000\.h5",
    r"/offset",
    make=broken(set_item("offset", 272, 1 << 40)),
)
case(
    "offsets that go back",
    S,
    r"broken-00000\.h5",
    r"/offset",
    make=broken(set_item("offset", 9, 0)),
)
case(
    "too few labels",
    S,
    r"broken-00000\.h5",
    r"/label",
    make=broken(replace_item("label", np.zeros(5, np.int32))),
)
case(
    "labels of another type",
    S,
    r"broken-00000\.h5",
    r"/label",
    make=broken(replace_item("label", np.zeros(272, np.float32))),
)
case(
    "an image of no height",
    S,
    r"broken-00000\.h5",
    r"/height",
    make=broken(set_item("height", 3, 0)),
)
case(
    "a shard of a later version",
    S,
    r"broken-00000\.h5",
    r"version",
    make=broken(set_attribute("version", 2)),
)
case(
    "an unknown encoding",
    S,
    r"broken-00000\.h5",
    r"encoding",
    make=broken(set_attribute("encoding", "webp")),
)
case(
    "shards of different channels",
    (*S, "data%channels=0"),
    r"data%channels",
    r"1",
    r"3",
    make=broken(beside),
)
case(
    "a val set of another image size",
    (
        "deck.nml",
        "data%val='half/val-*.h5'",
        "views%eval_resize=0",
        "views%eval_crop=0",
        "run%task='knn'",
        "checkpoint%init_from='pixels'",
    ),
    r"784|28|196|14",
)

# ------------------------------------------------------------------------ checkpoints

K = ("deck.nml", "run%output='copy'")


def flip_model_byte(path):
    with h5py.File(path, "r") as file:
        at = file["model/encoder_q.conv1.weight"].id.get_offset()
    with open(path, "r+b") as file:
        file.seek(at + 5)
        byte = file.read(1)
        file.seek(at + 5)
        file.write(bytes([byte[0] ^ 16]))


case(
    "checkpoint of a wider model",
    (*K, "model%width=16"),
    r"checkpoint-00000009\.h5",
    r"encoder_q\.conv1\.weight",
    r"\[8, 1, 3, 3\]",
    r"\[16, 1, 3, 3\]",
    make=copy_run,
)
case(
    "checkpoint of a shallower model",
    (*K, "model%backbone='resnet18'"),
    r"checkpoint-00000009\.h5",
    r"missing.*encoder_q\.layer1\.1\.",
    make=copy_run,
)
case(
    "checkpoint with a level more",
    (*K, "hirl%num_cluster=20,8"),
    r"checkpoint-00000009\.h5",
    r"unknown to this run: .*projection\.2\.",
    make=copy_run,
)
case(
    "checkpoint of other clusters",
    (*K, "hirl%num_cluster=21,8,3"),
    r"checkpoint-00000009\.h5",
    r"/hierarchy/centroid/0",
    r"\[20, 16\]",
    r"\[21, 16\]",
    make=copy_run,
)
case(
    "checkpoint of another hierarchy",
    (*K, "run%hierarchy='none'"),
    r"checkpoint-00000009\.h5",
    r"'hirl'",
    r"'none'",
    make=copy_run,
)
case(
    "checkpoint of another seed",
    (*K, "run%seed=1"),
    r"checkpoint-00000009\.h5",
    r"run%seed = 0",
    r"1",
    make=copy_run,
)
case(
    "checkpoint of another queue",
    (*K, "mocov2%queue=64"),
    r"checkpoint-00000009\.h5",
    r"/method/queue",
    make=copy_run,
)
case("checkpoint of another batch", (*K, "optim%batch=16"), r"step 9", r"17 batches", make=copy_run)
case(
    "checkpoint of another optimiser",
    (*K, "optim%name='adamw'"),
    r"checkpoint-00000009\.h5",
    r"/optimizer/",
    make=copy_run,
)
case(
    "checkpoint of other data",
    (*K, "data%train='colour/train-*.h5'", "data%channels=0", "data%val=''"),
    r"checkpoint-00000009\.h5",
    make=copy_run,
)
case(
    "a run that would start anew over another",
    (*K, "checkpoint%restart='none'"),
    r"checkpoint-00000009\.h5",
    r"run%output",
    make=copy_run,
)
case(
    "no such checkpoint to restart from",
    (*K, "checkpoint%restart='none.h5'"),
    r"none\.h5",
    make=copy_run,
)
case(
    "no such checkpoint to start from", ("deck.nml", "checkpoint%init_from='none.h5'"), r"none\.h5"
)
case(
    "a shard to start from",
    ("deck.nml", "checkpoint%init_from='data/train-00000.h5'"),
    r"train-00000\.h5",
    r"missing",
)
case(
    "no checkpoint to evaluate",
    ("deck.nml", "run%task='knn'"),
    r"no complete checkpoint",
    r"checkpoint%init_from",
)
case(
    "the checkpoint named is damaged",
    (*K, "checkpoint%restart='copy/checkpoints/checkpoint-00000009.h5'"),
    r"checkpoint-00000009\.h5",
    r"encoder_q\.conv1\.weight",
    r"checksum",
    make=damaged_run,
)
case(
    "the checkpoint named is cut short",
    (*K, "checkpoint%restart='copy/checkpoints/checkpoint-00000009.h5'"),
    r"checkpoint-00000009\.h5",
    make=cut_run,
)

# ------------------------------------------------------------------------ the run


def take_name(folder):
    os.mkdir(os.path.join(folder, "taken"))
    with open(os.path.join(folder, "taken/checkpoints"), "w"):
        pass


case("output in a file", ("deck.nml", "run%output='deck.nml/run'"), r"deck\.nml")
case("output where nothing can be made", ("deck.nml", "run%output='/proc/hirl'"), r"/proc/hirl")
case(
    "checkpoints in a file",
    ("deck.nml", "run%output='taken'", "run%max_steps=1"),
    r"taken/checkpoints",
    make=take_name,
)
case(
    "a gradient that is not finite",
    ("deck.nml", "run%output='diverged'", "optim%lr=1e6", "optim%weight_decay=1000"),
    r"step \d+",
    r"not finite",
    r"optim%lr",
)
case("packing nothing", ("pack.nml", "pack%source='nothing'", "pack%output='new'"), r"nothing")
case("packing again", ("pack.nml",), r"data", r"pack%overwrite")
case(
    "inspecting a deck", ("deck.nml", "run%task='inspect'", "inspect%path='deck.nml'"), r"deck\.nml"
)


# ------------------------------------------------------------------------ run them

SHARED = ("deck.nml", "pack.nml", "data", "good", "half", "colour")


def make_shards():
    """14x14 images, and images of three channels."""
    for split, n in (("train", 272), ("t10k", 48)):
        images = read_idx(split + "-images-idx3-ubyte.gz", 16, (28, 28), n)
        labels = read_idx(split + "-labels-idx1-ubyte.gz", 8, (), n)
        os.makedirs("half_idx", exist_ok=True)
        write_idx(
            "half_idx/%s-images-idx3-ubyte" % split, np.ascontiguousarray(images[:, ::2, ::2])
        )
        write_idx("half_idx/%s-labels-idx1-ubyte" % split, labels)
    for split in ("train", "val"):
        expect(
            hirl(
                "pack.nml",
                "pack%source='half_idx'",
                "pack%output='half'",
                "pack%%split='%s'" % split,
                ranks=1,
            ),
            0,
        )
    rng = np.random.RandomState(0)
    with open("cifar.bin", "wb") as file:
        for _ in range(272):
            file.write(bytes([rng.randint(10)]) + rng.bytes(3072))
    expect(
        hirl(
            "pack.nml",
            "pack%source='cifar.bin'",
            "pack%format='cifar10'",
            "pack%output='colour'",
            ranks=1,
        ),
        0,
    )


def state():
    """Size and time of every file that the cases share."""
    paths = [
        os.path.join(path, name)
        for folder in SHARED
        for path, _, names in os.walk(folder)
        for name in names
    ]
    return {path: (os.stat(path).st_size, os.stat(path).st_mtime_ns) for path in paths}


def run_case(each):
    """In a folder of its own."""
    folder = "case%02d" % cases.index(each)
    os.makedirs(folder)
    for name in SHARED:
        os.symlink(os.path.join("..", name), os.path.join(folder, name))
    if each.make:
        each.make(folder)
    result = hirl(*each.args, ranks=each.ranks, timeout=LIMIT, cwd=folder)
    checked = hirl("--check", *each.args, ranks=1, cwd=folder) if each.by_check else None
    return result, checked, folder


def judge(each, result, checked, folder):
    errors = error_lines(result.text)
    problems = []
    if result.code != 1:
        problems.append("exit code %s, expected 1" % result.code)
    if len(errors) != 1:
        problems.append("%d messages" % len(errors))
    problems += [
        "no '%s'" % pattern
        for pattern in each.patterns
        if not any(re.search(pattern, line) for line in errors)
    ]
    if checked and (checked.code != 1 or errors[0].split(" (src")[0] not in checked.text):
        problems.append("--check says otherwise: %s" % checked)
    if re.search(
        r"Signal: |Segmentation|Sanitizer|runtime error|HDF5-DIAG|internal error", result.text
    ):
        problems.append("a crash or a library's own text")
    left = [
        name
        for path, _, names in os.walk(folder)
        for name in names
        if name.endswith(".tmp") or "checkpoint-" in name
    ]
    left = [name for name in left if not each.keeps_checkpoints]
    if left:
        problems.append("files are left: " + ", ".join(left))
    check(
        not problems,
        "%-40s %4.1f s  %s" % (each.name, result.seconds, errors[0][:200] if errors else ""),
    )
    if problems:
        print("      %s\n%s" % ("; ".join(problems), result))


prepare()
make_shards()
expect(hirl("deck.nml", "run%output='good'", "run%max_steps=3"), 0)
expect(hirl("deck.nml", "run%output='good'", "run%max_steps=9"), 0)
before = state()
wanted = [each for each in cases if os.environ.get("CASE", "") in each.name]
# The launcher waits more than it works.
with concurrent.futures.ThreadPoolExecutor(4) as pool:
    for each, outcome in zip(wanted, pool.map(run_case, wanted)):
        judge(each, *outcome)
check(state() == before, "decks, shards and checkpoints given to them are as they were")
check(len(cases) >= 60, "%d cases" % len(cases))
check_clean("broken inputs", ".")
finish()
