# test: timeout=120 needs=python3-h5py,dataset-fashion-mnist
"""One rank fails alone, as on a node whose disk or copy of the data is bad: the job ends soon and not with 0, the
rank that failed says so, once, and nobody waits for it. Two programs with folders of their own stand for two nodes."""
import os
import shutil
import sys

import h5py

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "invariance"))
from whole_run import (HIRL, MPIRUN, N_TRAIN, check, check_clean, error_lines, expect, finish,  # noqa: E402
                       hirl, prepare, run, steps_of)

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


def flip_samples(samples):
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


def failed(what, result, *words):
    errors = error_lines(result.text)
    fine = result.code not in (0, None) and result.seconds < 30 and len(errors) == 1 and all(word in errors[0] for word in words)
    check(fine, "%s: %.1f s, %s" % (what, result.seconds, errors[0] if errors else "no message"))
    if not fine:
        print("expected one message with %s\n%s" % (words, result))


prepare()
make_node("good")
make_node("good2")
expect(on_nodes(("good", "good2"), "run%max_steps=2"), 0)

# What ranks find before they begin is agreed on: the rank is named, all end.
make_node("bad", lambda node: os.remove(os.path.join(node, "deck.nml")))
failed("no deck on rank 1", on_nodes(("good", "bad")), "rank 1: ", "deck.nml", "No such file")
make_node("bad", change_deck)
failed("another deck on rank 1", on_nodes(("good", "bad")), "rank 1", "another deck than rank 0")
make_node("bad", lambda node: os.remove(os.path.join(node, SHARD)))
failed("no shard on rank 1", on_nodes(("good", "bad")), "rank 1: ", SHARD)
make_node("bad", truncate)
failed("a shorter shard on rank 1", on_nodes(("good", "bad")), "rank 1: ", SHARD)
failed("a shorter shard on rank 0", on_nodes(("bad", "good")), "rank 0: ", SHARD)

# What a rank finds in its own samples is its own: the others are in the middle of a step, an evaluation, a clustering.
verify = ("data%verify=.true.", "data%max_bad_fraction=0")
make_node("bad", flip_samples(range(N_TRAIN)))
for access in ("mmap", "pread"):
    failed("bad samples on rank 1, " + access, on_nodes(("good", "bad"), *verify, "data%%access='%s'" % access), "rank 1: ", SHARD, "sample")
failed("bad samples on rank 0", on_nodes(("bad", "good"), *verify), "rank 0: ", SHARD, "sample")
failed("bad samples on rank 3 of 4", on_nodes(("good", "good2", "good", "bad"), *verify), "rank 3: ", SHARD, "sample")
# Rank 1 clusters the second half and trains on all: it fails with shared memory and communicators in use.
make_node("bad", flip_samples(range(N_TRAIN // 2)))
failed("training after a clustering", on_nodes(("good", "bad"), *verify, "hirl%cluster_warmup_epoch=0", "model%bn_group=0"),
       "rank 1: ", SHARD, "sample")
make_node("bad", flip_samples([N_TRAIN - 1]))
failed("clustering", on_nodes(("good", "bad"), *verify, "hirl%cluster_warmup_epoch=0"), "rank 1: ", SHARD, "sample %d" % (N_TRAIN - 1))
failed("evaluation", on_nodes(("good", "bad"), *verify, "run%task='knn'", "checkpoint%init_from='none'"), "rank 1: ", "sample %d" % (N_TRAIN - 1))

# Few bad samples are named, replaced, and no reason to end.
shutil.copytree("bad/data", "few")
result = expect(hirl("deck.nml", "data%train='few/train-*.h5'", "data%verify=.true.", "run%output='few_run'"), 0)
lines = [line for line in result.text.splitlines() if "checksum" in line]
check(1 <= len(lines) <= 5 and all("warning" in line and "few/train-00000.h5" in line and "sample %d" % (N_TRAIN - 1) in line for line in lines),
      "a bad sample is named once by each rank that trains on it, clusters or evaluates it: %d times" % len(lines))
check(steps_of("few_run") == [20], "and the run goes to its end")
for folder in ("good", "good2", "bad"):
    check_clean(folder, folder)
finish()
