# test: timeout=300 needs=python3-h5py,dataset-fashion-mnist
"""Runs that are killed without notice two to five times and restarted end with the bits of one that was not.

Each run is killed once inside the writing of a checkpoint and once inside the clustering (fault points of the
program), and up to three times more at a random moment: one rank, all ranks, or the launcher. The first
argument is the number of runs (3); validation/kill.sh gives it.
"""

import os
import random
import shutil
import signal
import sys
import time

from whole_run import (
    Started,
    check,
    check_clean,
    check_metrics,
    check_same_bits,
    check_same_metrics,
    checkpoint_path,
    end_group,
    environment,
    expect,
    finish,
    hirl,
    prepare,
    steps_of,
)

N_STEPS = 20
KNN = [8, 16, 20]
DECK = ("deck.nml", "knn%every_epochs=1", "checkpoint%every_steps=2", "checkpoint%keep=2")
WRITING = ("checkpoint_half", "checkpoint_rename", "checkpoint_keep")


def killed_at_fault(args, fault):
    """The program kills itself there; False if the run ends before."""
    run = Started(*args, env=environment(HIRL_FAULT=fault))
    result = run.finish(timeout=120)
    check(result.code is not None, "%s: the job ends by itself" % fault)
    return result.code != 0


def killed_at_random(args, rng, seconds):
    run = Started(*args)
    time.sleep(rng.uniform(0.1, seconds))
    pids = run.rank_pids()
    if run.process.poll() is not None or not pids:
        return run.finish().code != 0
    whom = rng.choice(("one rank", "all ranks", "the launcher and all"))
    if whom == "one rank":
        os.kill(rng.choice(pids), signal.SIGKILL)
    elif whom == "all ranks":
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
    else:
        end_group(run.process)
        for pid in pids:  # in groups of their own
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
    return run.finish(timeout=120).code != 0


def one_run(i, seconds):
    rng = random.Random(1000 + i)
    folder = "killed%03d" % i
    args = (*DECK, "run%%output='%s'" % folder)
    faults = [
        "%s:%d" % (rng.choice(WRITING), rng.randint(1, 4)),
        "cluster:%d" % rng.randint(1, 6),
    ]
    rng.shuffle(faults)
    n_kills = sum(killed_at_fault(args, fault) for fault in faults)
    check(n_kills == 2, "run %d: killed at %s" % (i, " and ".join(faults)))
    n_kills += sum(killed_at_random(args, rng, seconds) for _ in range(rng.randint(0, 3)))
    expect(hirl(*args), 0)
    is_same = check_same_bits("run %d, killed %d times" % (i, n_kills), "straight", folder, N_STEPS)
    check_metrics("run %d" % i, folder, N_STEPS, KNN)
    check_same_metrics("run %d" % i, "straight", folder)
    check(
        steps_of(folder) == [N_STEPS - 2, N_STEPS], "run %d: the newest two checkpoints are kept" % i
    )
    check_clean("run %d" % i, folder)
    shutil.rmtree(folder)
    return is_same


n_runs = int(sys.argv[1]) if len(sys.argv) > 1 else 3
prepare()
start = time.monotonic()
expect(hirl(*DECK, "run%output='straight'"), 0)
seconds = time.monotonic() - start
check(os.path.exists(checkpoint_path("straight", N_STEPS)), "straight: %.1f s" % seconds)
n_same = sum(one_run(i, seconds) for i in range(n_runs))
print("kill: %d of %d runs are bit-identical" % (n_same, n_runs))
finish()
