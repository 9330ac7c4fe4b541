# test: timeout=120 needs=python3-h5py,dataset-fashion-mnist
"""A run folder belongs to one live run: a second one is refused and changes nothing; when the first is gone, however it
ended, the folder is free at once."""

import os
import re
import signal
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "invariance"))
from whole_run import (
    Started,
    check,
    error_lines,
    expect,
    finish,  # noqa: E402
    hirl,
    prepare,
)

ARGS = ("deck.nml", "run%output='run'", "checkpoint%every_steps=1")
LONG = (*ARGS, "schedule%epochs=50")


def files():
    """What a run writes once, or only adds to."""
    names = ("deck.full.nml", "deck.short.nml", "metrics.jsonl", "log.txt")
    return {name: os.stat("run/" + name).st_ino for name in names}


prepare()
first = Started(*LONG)
check(first.wait_for_step("run/metrics.jsonl", 3), "the first run is under way")
with open("run/.lock") as file:
    holder = file.read().strip()
pids = first.rank_pids()
check(
    re.fullmatch(r"process (%s) on %s" % ("|".join(map(str, pids)), socket.gethostname()), holder),
    "the lock says who holds it: %s" % holder,
)
before = files()
second = hirl(*LONG)
errors = error_lines(second.text)
check(
    second.code == 1 and len(errors) == 1 and holder in errors[0] and "in use" in errors[0],
    "the second is refused: %s" % (errors or second),
)
check(files() == before, "and replaces no file")
check(first.process.poll() is None, "the first goes on")
for pid in pids:
    os.kill(pid, signal.SIGKILL)
first.finish()
result = expect(hirl(*ARGS, "run%max_steps=9", "schedule%epochs=50"), 0)
check("restart: from" in result.text, "after SIGKILL the folder is free, and the run continues")
with open("run/.lock") as file:
    check(file.read() == "", "in the end nobody holds it")
finish()
