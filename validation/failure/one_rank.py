# test: timeout=200 needs=python3-h5py,dataset-fashion-mnist
"""One rank fails alone, as on a node whose disk or copy of the data is bad: the job ends soon, and
with 1 because it would fail again; the rank that failed says so, once, and nobody waits for it. Two
programs with folders of their own stand for two nodes."""

import concurrent.futures
import os
import re
import shutil
import sys

import h5py

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "invariance"))
from whole_run import (
    HIRL,
    MPIRUN,
    N_TRAIN,
    check,
    check_clean,
    error_lines,
    expect,
    finish,  # noqa: E402
    hirl,
    prepare,
    run,
    steps_of,
)

LIMIT = 60
SHARD = "data/train-00000.h5"


def on_nodes(folders, *args):
    """Rank r runs in folders[r]."""
    command = list(MPIRUN)
    for folder in folders:
        command += ["-n", "1", "-wdir", os.path.abspath(folder), HIRL, "deck.nml", *args, ":"]
    return run(command[:-1], timeout=LIMIT)


def make_node(name, change=None):
    shutil.rmtree(name, ignore_errors=True)
    os.mkdir(name)
    shutil.copy("deck.nml", name)
    shutil.copytree("data", os.path.join(name, "data"))
    if change:
        change(name)


def flip(samples):
    """One bit of each."""

    def change(node):
        path = os.path.join(node, SHARD)
        with h5py.File(path) as file:
            at = file["data"].id.get_offset() + file["offset"][()]
        with open(path, "r+b") as file:
            for sample in samples:
                file.seek(at[sample] + 400)
                byte = file.read(1)
                file.seek(-1, os.SEEK_CUR)
                file.write(bytes([byte[0] ^ 4]))

    return change


def truncate(node):
    os.truncate(os.path.join(node, SHARD), 100000)


def change_deck(node):
    with open(os.path.join(node, "deck.nml"), "a") as file:
        file.write("&pack source = 'idx', output = 'data', seed = 3 /\n")


def judge(what, result, words):
    errors = error_lines(result.text)
    fine = result.code == 1 and result.seconds < 30 and len(errors) == 1
    fine = fine and all(word in errors[0] for word in words)
    check(fine, "%s: %.1f s, %s" % (what, result.seconds, errors[0] if errors else "no message"))
    if not fine:
        print("expected one message with %s\n%s" % (words, result))


def lose(name):
    return lambda node: os.remove(os.path.join(node, name))


ALL, FIRST_HALF, LAST = range(N_TRAIN), range(N_TRAIN // 2), [N_TRAIN - 1]
LAST_SAMPLE = "sample %d:" % LAST[0]
VERIFY = ("data%verify=.true.", "data%max_bad_fraction=0")
CLUSTER = (*VERIFY, "hirl%cluster_warmup_epoch=0")
KNN = (*VERIFY, "run%task='knn'", "checkpoint%init_from='none'")
CASES = (
    # What ranks find before they begin is agreed on: the rank is named, all end.
    ("no deck on rank 1", lose("deck.nml"), 1, 2, (), ("rank 1: ", "deck.nml", "No such file")),
    ("another deck on rank 1", change_deck, 1, 2, (), ("rank 1", "another deck than rank 0")),
    ("no shard on rank 1", lose(SHARD), 1, 2, (), ("rank 1: ", SHARD)),
    ("a shorter shard on rank 1", truncate, 1, 2, (), ("rank 1: ", SHARD)),
    ("a shorter shard on rank 0", truncate, 0, 2, (), ("rank 0: ", SHARD)),
    # What a rank finds in its samples is its own: the others are in a step, a clustering or an
    # evaluation.
    ("first step", flip(ALL), 1, 2, VERIFY, ("rank 1: ", SHARD, "sample")),
    (
        "first step, pread",
        flip(ALL),
        1,
        2,
        (*VERIFY, "data%access='pread'"),
        ("rank 1: ", SHARD, "sample"),
    ),
    ("first step of rank 0", flip(ALL), 0, 2, VERIFY, ("rank 0: ", SHARD, "sample")),
    ("first step of rank 3", flip(ALL), 3, 4, VERIFY, ("rank 3: ", SHARD, "sample")),
    ("clustering", flip(LAST), 1, 2, CLUSTER, ("rank 1: ", SHARD, LAST_SAMPLE)),
    ("evaluation", flip(LAST), 1, 2, KNN, ("rank 1: ", SHARD, LAST_SAMPLE)),
    # Rank 1 clusters the second half and trains on all: it fails with shared memory and
    # communicators in use.
    (
        "training after a clustering",
        flip(FIRST_HALF),
        1,
        2,
        (*CLUSTER, "model%bn_group=0"),
        ("rank 1: ", SHARD, "sample"),
    ),
)


def run_case(number):
    what, change, bad_rank, n_ranks, args, words = CASES[number]
    nodes = ["case%02d_node%d" % (number, rank) for rank in range(n_ranks)]
    for rank, node in enumerate(nodes):
        make_node(node, change if rank == bad_rank else None)
    return what, on_nodes(nodes, *args), words


def few_bad_samples():
    """Are named, replaced, and no reason to end."""
    make_node("few", flip(LAST))
    result = expect(
        hirl(
            "deck.nml",
            "data%train='few/data/train-*.h5'",
            "data%verify=.true.",
            "run%output='few_run'",
        ),
        0,
    )
    lines = [line for line in result.text.splitlines() if "checksum" in line]
    is_named = all("warning" in line and SHARD in line and LAST_SAMPLE in line for line in lines)
    ranks = [re.search(r"rank \d", line).group(0) for line in lines]
    check(
        lines and len(set(ranks)) == len(ranks) and is_named,
        "a bad sample is named once by each rank that meets it, however often: by %s"
        % ", ".join(ranks),
    )
    check(steps_of("few_run") == [20], "and the run goes to its end")


prepare()
make_node("good")
expect(on_nodes(("good", "good"), "run%max_steps=2"), 0)
few_bad_samples()
# The ranks that do not fail wait.
with concurrent.futures.ThreadPoolExecutor(3) as pool:
    for outcome in pool.map(run_case, range(len(CASES))):
        judge(*outcome)
check_clean("one rank", ".")
finish()
