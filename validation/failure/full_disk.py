# test: timeout=200 needs=python3-h5py,dataset-fashion-mnist
"""A disk that is full, or a limit on the size of files: the run ends with a message, the last
whole checkpoint stays, nothing half-written does, and with room again the run goes on to the bits
of one that never ran out of it."""

import glob
import os
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "invariance"))
from whole_run import (
    HIRL,
    Started,
    check,
    check_clean,
    check_metrics,
    check_same_bits,
    error_lines,
    expect,
    finish,  # noqa: E402
    hirl,
    prepare,
    metrics,
    run,
    steps_of,
)

N_STEPS = 20
N_STEPS_LOGS = 240  # some seconds


def failed(what, result, *words):
    errors = error_lines(result.text)
    fine = result.code == 1 and len(errors) == 1 and all(word in errors[0] for word in words)
    check(fine, "%s: %s" % (what, errors[0] if errors else "no message"))
    if not fine:
        print("expected one message with %s\n%s" % (words, result))


def limited(n_bytes, *args):
    """One rank without mpirun: Open MPI's own files between ranks are larger."""
    return run(
        ["/bin/sh", "-c", 'ulimit -f %d; exec "$0" "$@"' % (n_bytes // 512), HIRL, *args],
        timeout=60,
    )


def full(folder):
    """A file system with room for one checkpoint, but not for the next beside it."""
    args = (
        "deck.nml",
        "run%%output='%s/run'" % folder,
        "checkpoint%every_steps=5",
        "checkpoint%keep=1",
    )
    failed("full disk", hirl(*args), "checkpoint-0000", "room")
    found = steps_of(folder + "/run")
    check(
        len(found) == 1 and found[0] < N_STEPS, "full disk: the checkpoint of step %s stays" % found
    )
    check_clean("full disk", folder)
    check_same_bits("full disk", "straight", folder + "/run", found[0])
    check(
        subprocess.call(["mount", "-o", "remount,size=16m", folder]) == 0, "full disk: made larger"
    )
    expect(hirl(*args), 0)
    check_same_bits("room again", "straight", folder + "/run", N_STEPS)
    check_metrics("room again", folder + "/run", N_STEPS, [N_STEPS])
    failed(
        "packing to a full disk",
        hirl("pack.nml", "pack%%output='%s/tiny/data'" % folder),
        "/tiny/data",
        "free",
    )
    check(not os.listdir(folder + "/tiny/data"), "packing to a full disk leaves nothing")


def count_events(path):
    """Records of an event file that hold scalars; the file must end with a whole one."""
    with open(path, "rb") as file:
        data = file.read()
    at, n = 0, 0
    while at < len(data):
        (size,) = struct.unpack_from("<Q", data, at)
        n += b"train/loss" in data[at + 12 : at + 12 + size]
        at += 8 + 4 + size + 4
    check(at == len(data), "full disk for logs: the event file ends with a whole record")
    return n


def logs(folder):
    """The disk is full for a while of a run that writes nothing but its logs."""
    args = ("deck.nml", "schedule%%epochs=%d" % (N_STEPS_LOGS // 8), "hirl%cluster_warmup_epoch=99")
    job = Started(*args, "run%%output='%s/run'" % folder, "run%log_level='debug'")
    job.wait_for_step(folder + "/run/metrics.jsonl", 20)
    filler = os.open(folder + "/filler", os.O_WRONLY | os.O_CREAT)
    try:
        size = 65536
        while size:
            try:
                os.write(filler, b"x" * size)
            except OSError:
                size //= 2
    finally:
        os.close(filler)
    seen, end = "", time.monotonic() + 60
    wanted = ("metrics.jsonl: a record could not be written", "the report is not written")
    while not all(word in seen for word in wanted) and time.monotonic() < end:
        time.sleep(0.05)
        seen = os.pread(job.log.fileno(), 1 << 20, 0).decode(errors="replace")
    n_lines = len(metrics(folder + "/run/metrics.jsonl"))
    check(all(word in seen for word in wanted), "full disk for logs: warnings tell of it")
    check(job.process.poll() is None, "full disk for logs: the run goes on")
    os.remove(folder + "/filler")
    result = expect(job.finish(timeout=120), 0)
    check(n_lines < N_STEPS_LOGS, "full disk for logs: %d lines before there was room" % n_lines)
    check_metrics("full disk for logs", folder + "/run", N_STEPS_LOGS, [N_STEPS_LOGS])
    files = glob.glob(folder + "/run/events*")
    n = [count_events(path) for path in files]
    check(n == [N_STEPS_LOGS], "full disk for logs: %s steps in the event file" % n)
    printed = result.text.splitlines()
    with open(folder + "/run/log.txt") as file:
        lines = file.read().splitlines()
    own = [line for line in lines if line not in printed and "lines are missing here" not in line]
    check(not own, "full disk for logs: log.txt has whole lines%s" % own)
    check("report.html" in os.listdir(folder + "/run"), "full disk for logs: there is a report")
    check_clean("full disk for logs", folder)


# Mounts of an own namespace are gone with the process, whatever ends it.
if os.geteuid() == 0 and "HIRL_MOUNTS" not in os.environ:
    if subprocess.call(["unshare", "-m", "true"], stderr=subprocess.DEVNULL) == 0:
        os.environ["HIRL_MOUNTS"] = "own"
        os.execvp("unshare", ["unshare", "-m", sys.executable, os.path.abspath(__file__)])

prepare()
expect(hirl("deck.nml", "run%output='straight'", "checkpoint%every_steps=5"), 0)
size = os.path.getsize("straight/checkpoints/checkpoint-00000010.h5")

failed(
    "limit",
    limited(size // 2, "deck.nml", "run%output='limited'"),
    "checkpoint-000000",
    "File too large",
)
check(steps_of("limited") == [], "limit: no checkpoint is left")
check_clean("limit", "limited")
result = limited(100 << 10, "pack.nml", "pack%output='limited_data'")
failed("packing under a limit", result, "100.00 KiB", "ulimit -f")
check(os.listdir("limited_data") == [], "packing under a limit leaves nothing")

os.mkdir("disk")
if (
    "HIRL_MOUNTS" in os.environ
    and subprocess.call(["mount", "-t", "tmpfs", "-o", "size=%d" % (1.6 * size), "tmpfs", "disk"])
    == 0
):
    try:
        os.mkdir("disk/tiny")
        subprocess.check_call(["mount", "-t", "tmpfs", "-o", "size=150k", "tmpfs", "disk/tiny"])
        full("disk")
        os.mkdir("disk/logs")
        options = "size=%d" % (1.2 * size + (1 << 20))
        subprocess.check_call(["mount", "-t", "tmpfs", "-o", options, "tmpfs", "disk/logs"])
        logs("disk/logs")
    finally:
        subprocess.call(["umount", "-l", "disk/logs"], stderr=subprocess.DEVNULL)
        subprocess.call(["umount", "disk/tiny"])
        subprocess.call(["umount", "disk"])
else:
    print(
        "      no file system of a given size can be mounted here: the limit on files stands for it"
    )
finish()
