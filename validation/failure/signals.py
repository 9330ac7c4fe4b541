# test: timeout=200 needs=python3-h5py,dataset-fashion-mnist
"""Signals to packing and to the KNN evaluation: both end soon with the exit code for "run again",
whether one rank gets the signal or all. Packing keeps what it has finished, goes on with it, also
after SIGKILL and on another number of ranks, and ends with the bytes of a run that was left alone;
it takes over no shard of another source or seed. Signals to training: invariance/restart.py."""

import os
import re
import shutil
import signal
import struct
import sys
import time
import zlib

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "invariance"))
from whole_run import (
    TMP,
    Started,
    check,
    expect,
    finish,  # noqa: E402
    hirl,
    read_idx,
    write_idx,
)

INTERRUPTED = 75
SOON = 8  # seconds, of which mpirun takes one or two; to its end the evaluation takes minutes

PACK = """&run task = 'pack' /
&pack source = 'idx', shard_mib = 4 /
"""
KNN = """&run task = 'knn', output = 'knn', threads = 1 /
&data
  train = 'straight/train-*.h5', val = 'straight/train-*.h5'
  channels = 1, mean = 0.286, std = 0.353, n_threads = 1
/
&views crop_size = 16, eval_resize = 64, eval_crop = 64 /
&model backbone = 'resnet10', stem = 'cifar', width = 8 /
&optim batch = 256 /
&checkpoint init_from = 'none' /
&knn k = 5 /
"""


def prepare():
    os.makedirs(TMP, exist_ok=True)
    os.chdir(TMP)
    os.makedirs("idx", exist_ok=True)
    images = np.tile(read_idx("train-images-idx3-ubyte.gz", 16, (28, 28), 60000), (3, 1, 1))
    labels = np.tile(read_idx("train-labels-idx1-ubyte.gz", 8, (), 60000), 3)
    write_idx("idx/train-images-idx3-ubyte", images)
    write_idx("idx/train-labels-idx1-ubyte", labels)
    for name, text in (("pack.nml", PACK), ("knn.nml", KNN)):
        with open(name, "w") as file:
            file.write(text)


def names(folder, pattern):
    return sorted(x for x in os.listdir(folder) if re.fullmatch(pattern, x))


SHARD = r"train-\d{5}\.h5"
FINISHED = SHARD + r"\.part-[0-9a-f]{16}"


def contents(folder):
    found = {}
    for name in os.listdir(folder):
        with open(os.path.join(folder, name), "rb") as file:
            found[name] = file.read()
    return found


def send(job, to, number):
    """To all ranks, to one of them, or to mpirun, which passes SIGUSR1 on; then the end is near."""
    pids = {"all": job.rank_pids(), "mpirun": [job.process.pid], "one": job.rank_pids()[1:2]}[to]
    for pid in pids:
        os.kill(pid, number)
    start = time.monotonic()
    result = job.finish()
    return result, time.monotonic() - start


def judge(what, result, seconds, text):
    lines = [line for line in result.text.splitlines() if re.search(text, line)]
    fine = result.code == INTERRUPTED and len(lines) == 1 and lines[0].startswith("warning: ")
    check(fine, "%s: exit code %s, %s" % (what, result.code, lines or result))
    check(seconds < SOON, "%s: %.1f s" % (what, seconds))


def start_packing(output, n_finished, ranks=2):
    job = Started("pack.nml", "pack%%output='%s'" % output, ranks=ranks)
    end = time.monotonic() + 60
    while time.monotonic() < end and job.process.poll() is None:
        if os.path.isdir(output) and len(names(output, FINISHED)) >= n_finished:
            break
        time.sleep(0.002)
    return job


def check_output(what, output):
    same = contents(output) == contents("straight")
    check(same, "%s: the bytes of a run that was left alone" % what)


def continue_packing(what, output, n_kept, ranks=2):
    result = expect(hirl("pack.nml", "pack%%output='%s'" % output, ranks=ranks), 0)
    found = re.search(r"pack: (\d+) shards were finished before and are kept", result.text)
    found = int(found.group(1)) if found else 0
    check(found == n_kept, "%s: goes on with %d finished shards (%d)" % (what, n_kept, found))
    check_output(what, output)


def packing():
    for to, number, ranks in (
        ("all", signal.SIGTERM, 2),
        ("one", signal.SIGTERM, 2),
        ("mpirun", signal.SIGUSR1, 1),
    ):
        what = "packing, %s to %s" % (signal.Signals(number).name, to)
        output = "packed_" + to
        result, seconds = send(start_packing(output, 3), to, number)
        judge(what, result, seconds, r"signal %d: packing ends; \d+ finished shards" % number)
        n = len(names(output, FINISHED))
        check(
            3 <= n < 34 and len(os.listdir(output)) == n and "; %d finished" % n in result.text,
            "%s: %d finished shards and nothing else" % (what, n),
        )
        continue_packing(what, output, n, ranks)


def packing_killed():
    job = start_packing("killed", 4)
    for pid in job.rank_pids():
        os.kill(pid, signal.SIGKILL)
    job.finish()
    n = len(names("killed", FINISHED))
    check(n >= 4 and not names("killed", SHARD), "SIGKILL: %d finished shards, no others" % n)
    with open("killed/train-00033.h5.part", "w") as file:
        file.write("half")
    shutil.copytree("killed", "other")
    shutil.copytree("killed", "older")
    continue_packing("SIGKILL", "killed", n)
    # The same sizes, names and so on, but one pixel is another.
    with open("idx/train-images-idx3-ubyte", "r+b") as file:
        file.seek(16)
        file.write(b"\1")
    result = expect(hirl("pack.nml", "pack%output='other'"), 0)
    found = re.search(r"pack: (\d+) shards were finished before", result.text)
    check(found and int(found.group(1)) == n - 1, "another pixel: all but its shard are taken over")
    result = expect(hirl("pack.nml", "pack%output='older'", "pack%seed=1"), 0)
    check("finished before" not in result.text, "another seed: no shard is taken over")
    for output, seed in (("other", 0), ("older", 1)):
        expect(hirl("pack.nml", "pack%%output='%s2'" % output, "pack%%seed=%d" % seed), 0)
        check(contents(output) == contents(output + "2"), "%s: as if begun anew" % output)


def write_png(path, side):
    """A grey image that is small and takes long to decode."""

    def checksum(data):
        return struct.pack(">I", zlib.crc32(data))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + checksum(kind + data)

    rows = zlib.compress((b"\0" + bytes(range(256)) * (side // 256)) * side, 1)
    with open(path, "wb") as file:
        head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head))
        file.write(chunk(b"IDAT", rows) + chunk(b"IEND", b""))


def checking():
    """Image files are all decoded before the first shard is written."""
    os.makedirs("photos/a")
    write_png("photos/a/0000.png", 2048)
    for i in range(1, 1500):
        os.link("photos/a/0000.png", "photos/a/%04d.png" % i)
    args = ("pack%source='photos'", "pack%format='folder'", "pack%output='checked'")
    job = Started("pack.nml", *args)
    time.sleep(3)
    result, seconds = send(job, "all", signal.SIGUSR1)
    judge("checking images", result, seconds, "signal 10: packing ends; 0 finished shards")
    check(os.listdir("checked") == [], "checking images: leaves nothing")


def evaluation():
    before = sorted(os.listdir("."))
    for to, number in (("all", signal.SIGTERM), ("one", signal.SIGUSR1)):
        what = "KNN, %s to %s" % (signal.Signals(number).name, to)
        job = Started("knn.nml")
        time.sleep(4)
        check(job.process.poll() is None, "%s: is under way" % what)
        result, seconds = send(job, to, number)
        judge(what, result, seconds, "signal %d: the evaluation ends without a result" % number)
        check("top1" not in result.text, "%s: no result" % what)
    # The search itself, on pixels, which takes a minute.
    args = ("checkpoint%init_from='pixels'", "views%eval_resize=28", "views%eval_crop=28")
    args += ("data%train='straight/train-0000*.h5'", "data%val='straight/train-0000*.h5'")
    job = Started("knn.nml", *args, "knn%engine='faiss'", "run%log_level='debug'")
    end = time.monotonic() + 60
    while b"knn bank =" not in os.pread(job.log.fileno(), 1 << 20, 0) and time.monotonic() < end:
        time.sleep(0.1)
    result, seconds = send(job, "all", signal.SIGTERM)
    check("knn bank =" in result.text, "KNN: the search is under way")
    judge("KNN, search", result, seconds, "signal 15: the evaluation ends without a result")
    check(sorted(os.listdir(".")) == before, "KNN: leaves no file")


prepare()
expect(hirl("pack.nml", "pack%output='straight'"), 0)
packing()
evaluation()
checking()
packing_killed()
finish()
