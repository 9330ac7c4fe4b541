# test: timeout=200 needs=python3-h5py,dataset-fashion-mnist
"""A disk that is full, or a limit on the size of files: the run ends with a message, the last
whole checkpoint stays, nothing half-written does, and with room again the run goes on to the bits
of one that never ran out of it."""

import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "invariance"))
from whole_run import (
    HIRL,
    check,
    check_clean,
    check_metrics,
    check_same_bits,
    error_lines,
    expect,
    finish,  # noqa: E402
    hirl,
    prepare,
    run,
    steps_of,
)

N_STEPS = 20


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
    finally:
        subprocess.call(["umount", "disk/tiny"])
        subprocess.call(["umount", "disk"])
else:
    print(
        "      no file system of a given size can be mounted here: the limit on files stands for it"
    )
finish()
