# test: alone=no timeout=300 needs=python3-h5py,dataset-fashion-mnist
"""A run that is stopped at any moment and restarted ends with the same bits as one that was not.

The undisturbed run keeps a checkpoint of every step, so each stop is compared where it happened:
before the first clustering, at the end of an epoch (the clustering comes after the restart),
after it, at the next one. All comparisons are bit for bit: the same number of ranks adds in the
same order.
"""

import os
import random
import re
import signal

import numpy as np

from whole_run import (
    N_BATCHES,
    Started,
    check,
    check_clean,
    check_metrics,
    check_same_bits,
    check_same_metrics,
    checkpoint_path,
    differing,
    expect,
    finish,
    hirl,
    metrics,
    prepare,
    read_checkpoint,
    steps_of,
)

N_STEPS = 20
KNN = [8, 16, 20]  # every epoch and at the end
INTERRUPTED = 75


def stop_by_max_steps():
    before = 0
    for stop in (3, N_BATCHES, 11, 2 * N_BATCHES):
        result = expect(
            hirl(
                "deck.nml", "run%output='stopped'", "knn%every_epochs=1", "run%%max_steps=%d" % stop
            ),
            0,
        )
        check(
            ("restart: from" in result.text) == (stop > 3),
            "max_steps = %d: restarted unless it is the first" % stop,
        )
        check_same_bits("max_steps = %d" % stop, "straight", "stopped", stop)
        changed = re.findall(r"the deck changed: (.*)", result.text)
        expected = ["run%%max_steps: %d -> %d" % (before, stop)] if stop > 3 else []
        check(changed == expected, "max_steps = %d: the log says what changed: %s" % (stop, changed))
        before = stop
    expect(hirl("deck.nml", "run%output='stopped'", "knn%every_epochs=1"), 0)
    check_same_bits("max_steps", "straight", "stopped", N_STEPS)
    check_metrics("max_steps", "stopped", N_STEPS, KNN)
    check_same_metrics("max_steps", "straight", "stopped")


def finished_run_again():
    """A run that is done evaluates again, and changes nothing else."""
    expect(hirl("deck.nml", "run%output='stopped'", "knn%every_epochs=1"), 0)
    check_metrics("run again", "stopped", N_STEPS, KNN)
    check_same_bits("run again", "straight", "stopped", N_STEPS)


def stop_by_signal(what, after, send):
    """`send(run)` stops it after so many steps or a little later; then the run is started again."""
    folder = what
    args = ("deck.nml", "run%%output='%s'" % folder)
    run = Started(*args)
    is_under_way = run.wait_for_step(os.path.join(folder, "metrics.jsonl"), after)
    check(is_under_way and len(run.rank_pids()) == 2, "%s: two ranks are under way" % what)
    send(run)
    result = run.finish()
    check(
        result.code == INTERRUPTED,
        "%s: exit code %s, expected %d" % (what, result.code, INTERRUPTED),
    )
    if result.code != INTERRUPTED:
        print(result)
    stopped_at = metrics(os.path.join(folder, "metrics.jsonl"))[-1]["step"]
    check(
        steps_of(folder) == [stopped_at] and after <= stopped_at < N_STEPS,
        "%s: one checkpoint, of the last step %d" % (what, stopped_at),
    )
    check(
        "signal" in result.text and "run again to continue" in result.text,
        "%s: the log says what to do" % what,
    )
    check_same_bits(what, "straight", folder, stopped_at)
    expect(hirl(*args), 0)
    check_same_bits(what, "straight", folder, N_STEPS)
    check_metrics(what, folder, N_STEPS, [N_STEPS])


def kill():
    """Ranks killed without notice, twice, at any moment; then to the end."""
    rng = random.Random(20)
    args = ("deck.nml", "run%output='killed'", "checkpoint%every_steps=1", "checkpoint%keep=2")
    for _ in range(2):
        at = (
            metrics("killed/metrics.jsonl")[-1]["step"]
            if os.path.exists("killed/metrics.jsonl")
            else 0
        )
        run = Started(*args)
        if not run.wait_for_step("killed/metrics.jsonl", at + rng.randint(1, 4)):
            print(run.finish())
            break
        pids = run.rank_pids()
        os.kill(pids[rng.randrange(len(pids))], signal.SIGKILL)
        result = run.finish()
        check(
            result.code not in (0, None, INTERRUPTED),
            "kill: the job ends with an error (%s)" % result.code,
        )
    expect(hirl(*args), 0)
    check_same_bits("kill", "straight", "killed", N_STEPS)
    check_metrics("kill", "killed", N_STEPS, [N_STEPS])
    check(steps_of("killed") == [N_STEPS - 1, N_STEPS], "kill: the newest two checkpoints are kept")
    check_clean("kill", "killed")


VARIANTS = (
    ("adamw", "optim%name='adamw'", "optim%lr=0.001", "optim%accumulate=2"),
    ("lars", "optim%name='lars'", "schedule%warmup_epochs=1", "schedule%per_epoch=.true."),
    ("crops", "views%crop_size=16,16,8,8", "optim%nesterov=.true.", "model%bn_group=0"),
    ("bf16", "run%precision='bf16'", "optim%clip_grad=1"),
    ("plain", "run%hierarchy='none'", "mocov2%queue=32"),
)


def other_states():
    """Other optimisers, schedules and views have other things to remember; stopped at step 5 of 10."""
    for name, *changes in VARIANTS:
        for folder in (name + "_straight", name + "_stopped"):
            args = ("deck.nml", "run%%output='%s'" % folder, "schedule%epochs=1.25", *changes)
            args += ("hirl%cluster_warmup_epoch=0.5", "data%val=''")
            if "stopped" in folder:
                expect(hirl(*args, "run%max_steps=5"), 0)
            expect(hirl(*args), 0)
        check_same_bits(name, name + "_straight", name + "_stopped", 10)


def warm_start():
    """A hierarchy starts from the encoders of a run without one, and draws what only it has."""
    path = checkpoint_path("plain_straight", 10)
    args = ("deck.nml", "run%output='warm'", "run%max_steps=1", "optim%lr=0", "optim%weight_decay=0")
    result = expect(hirl(*args, "checkpoint%%init_from='%s'" % path), 0)
    check("lacks /model/projection.0." in result.text, "warm start: a warning names what is drawn")
    warm, plain = read_checkpoint(checkpoint_path("warm", 1)), read_checkpoint(path)
    names = [name for name in plain if name.startswith("model/encoder_q.") and "running" not in name]
    same = [name for name in names if np.array_equal(warm[name], plain[name])]
    changed = [name for name in names if name not in same]
    check(
        len(same) > 20 and all("num_batches" in name for name in changed),
        "warm start: %d arrays of the encoder are those of the file" % len(same),
    )


def damaged_newest():
    """The newest checkpoint is damaged: the one before is taken, with a warning, and the end is
    the same."""
    path = checkpoint_path("stopped", N_STEPS)
    with open(path, "r+b") as file:
        file.seek(os.path.getsize(path) // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    result = expect(hirl("deck.nml", "run%output='stopped'", "knn%every_epochs=1"), 0)
    check(
        "warning" in result.text and "checkpoint-%08d" % N_STEPS in result.text,
        "damaged: a warning names the file",
    )
    check("step = 16 " in result.text, "damaged: goes on from step 16")
    check_same_bits("damaged", "straight", "stopped", N_STEPS)
    check_metrics("damaged", "stopped", N_STEPS, KNN)


prepare()
expect(
    hirl("deck.nml", "run%output='straight'", "knn%every_epochs=1", "checkpoint%every_steps=1"), 0
)
check(steps_of("straight") == list(range(1, N_STEPS + 1)), "straight: a checkpoint of each step")
check_metrics("straight", "straight", N_STEPS, KNN)
a, b = (read_checkpoint(checkpoint_path("straight", step)) for step in (N_STEPS - 1, N_STEPS))
check(len(differing(a, b)) > 100, "straight: one step changes %d arrays" % len(differing(a, b)))
stop_by_max_steps()
finished_run_again()
damaged_newest()
stop_by_signal("sigterm", 2, lambda run: os.kill(run.rank_pids()[1], signal.SIGTERM))
stop_by_signal(
    "sigusr1", 10, lambda run: run.process.send_signal(signal.SIGUSR1)
)  # mpirun passes it on to all ranks
kill()
other_states()
warm_start()
check_clean("restart", ".")
finish()
