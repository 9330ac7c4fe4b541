# test: timeout=200 needs=python3-h5py,dataset-fashion-mnist
"""A rank that is killed, stopped or hangs ends the job within run%timeout, with a message that names rank, node, step and
call; a job that is paused as a whole, for longer than that, goes on; one that ends in good order hears nothing."""

import os
import re
import signal
import socket
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "invariance"))
from whole_run import (
    HIRL,
    MPIRUN,
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
    run,
    steps_of,
)

TIMEOUT = 6  # seconds
LOST = 76
# mpirun reports the end that it has seen first: the dead rank's, whose code is 128 + signal.
KILLED = 128 + signal.SIGKILL
SLACK = 3  # for the launcher to end a job on a busy machine
DECK = ("deck.nml", "checkpoint%every_steps=1", "schedule%epochs=50", "run%%timeout=%d" % TIMEOUT)
NODE = socket.gethostname()


def is_alive(pid):
    try:
        with open("/proc/%d/stat" % pid) as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def judge(what, result, code, seconds, pids, *patterns):
    lines = [line for line in error_lines(result.text) if "watchdog" in line]
    check(result.code == code, "%s: exit code %s, expected %d" % (what, result.code, code))
    check(seconds < TIMEOUT + SLACK, "%s: the job ends after %.1f s" % (what, seconds))
    missing = [p for p in patterns if not any(re.search(p, line) for line in lines)]
    check(not missing, "%s: %s" % (what, lines[0] if lines else "no message"))
    if missing:
        print("      no %s in\n%s" % (missing, result))
    end = time.monotonic() + 2  # one that is killed on a busy machine takes a moment to be gone
    while any(map(is_alive, pids)) and time.monotonic() < end:
        time.sleep(0.05)
    check(not any(map(is_alive, pids)), "%s: no process is left" % what)


def send(what, rank, number, *patterns, ranks=2):
    folder = what.replace(" ", "_")
    job = Started(*DECK, "run%%output='%s'" % folder, ranks=ranks)
    is_under_way = job.wait_for_step(folder + "/metrics.jsonl", 4)
    time.sleep(0.7)  # two heartbeats: what it was at is not older
    pids = job.rank_pids()
    check(is_under_way and len(pids) == ranks, "%s: %d ranks are under way" % (what, ranks))
    start = time.monotonic()
    os.kill(pids[rank], number)
    result = job.finish(timeout=60)
    code = KILLED if number == signal.SIGKILL else LOST
    judge(what, result, code, time.monotonic() - start, pids, *patterns)
    check(len(steps_of(folder)) > 0, "%s: checkpoints stay" % what)


def hang():
    """Rank 1 never comes back from before its third step."""
    line = [HIRL, *DECK, "run%output='hang'"]
    start = time.monotonic()
    result = run([*MPIRUN, "-n", "1", *line, ":", "-n", "1", "-x", "HIRL_FAULT=hang:3", *line])
    judge(
        "hang",
        result,
        LOST,
        time.monotonic() - start - 2,  # two steps, and the start
        [],
        r"rank 0 \(process \d+ on node %s\) waits for rank 1 " % re.escape(NODE),
        r"for \d+\.\d s in .*all-?reduce|MPI_\w+",
        r"step 2, training",
        r"run%timeout = 6 s",
    )


def pause():
    """All ranks at once, as a suspended job, for longer than the timeout."""
    job = Started("deck.nml", "run%output='paused'", "run%timeout=2", "knn%every_epochs=1")
    job.wait_for_step("paused/metrics.jsonl", 3)
    pids = job.rank_pids()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(4)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    result = job.finish(timeout=60)
    check(result.code == 0, "pause: the job goes on to its end (exit code %s)" % result.code)
    if result.code != 0:
        print(result)
    check("watchdog" not in result.text, "pause: no word of the watchdog")
    check_same_bits("pause", "straight", "paused", 20)
    check_metrics("pause", "paused", 20, [8, 16, 20])


prepare()
expect(hirl("deck.nml", "run%output='straight'", "knn%every_epochs=1"), 0)
silent = r"gave no sign of life for \d\.\d s"
where = r"it was at step \d+, (training|start of an epoch|evaluation)"
on_node = r"rank %%d \(process \d+ on node %s\)" % re.escape(NODE)
send("stopped rank", 1, signal.SIGSTOP, on_node % 1, silent, where, r"run%timeout = 6 s")
send("stopped hub", 0, signal.SIGSTOP, on_node % 0, silent, where)
send("killed rank", 1, signal.SIGKILL, on_node % 1, r"died", where)
send("killed hub", 0, signal.SIGKILL, on_node % 0, r"died", where)
send("one of four", 2, signal.SIGSTOP, on_node % 2, silent, where, ranks=4)
hang()
pause()
check_clean("watchdog", "straight", "paused")
finish()
