# test: alone=no timeout=200 needs=python3-h5py,dataset-fashion-mnist
"""Losses and gradients that are not finite: all ranks pass the step over, then go back to the newest checkpoint, then
end with one message. Fault points make a loss on rank 0 alone not finite; a learning rate beyond reason does it in earnest."""

import os
import re
import sys

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "invariance"))
from whole_run import (
    check,
    check_clean,
    check_metrics,
    check_same_bits,
    checkpoint_path,
    differing,
    environment,
    error_lines,
    expect,
    finish,  # noqa: E402
    hirl,
    metrics,
    prepare,
    read_checkpoint,
    steps_of,
)

N_STEPS = 20
DECK = ("deck.nml", "checkpoint%every_steps=1")


def faults(first, last):
    return environment(HIRL_FAULT=",".join("loss:%d" % i for i in range(first, last + 1)))


def is_finite(path):
    arrays = read_checkpoint(path).values()
    return all(np.all(np.isfinite(a)) for a in arrays if a.dtype.kind == "f")


def one_step():
    result = expect(hirl(*DECK, "run%output='one'", env=faults(5, 5)), 0)
    check(
        "step 5: a loss or the gradient" in result.text and "1 in a row, 1 in all" in result.text,
        "one step: the log says that it is passed over",
    )
    samples = re.search(r"rank 0: step 5: loss = nan of samples((?: \d+)+)", result.text)
    check(
        samples and len(samples.group(1).split()) == 16 and "rank 1: step" not in result.text,
        "one step: rank 0 names its 16 samples, rank 1 none",
    )
    check(5 not in steps_of("one") and 6 in steps_of("one"), "one step: no checkpoint of it")
    lines = metrics("one/metrics.jsonl")
    check(
        [line["step"] for line in lines if line.get("loss", 0) is None] == [5],
        "one step: its loss alone is null",
    )
    check_metrics("one step", "one", N_STEPS, [N_STEPS])
    check_same_bits("one step: before it", "straight", "one", 4)
    check(is_finite(checkpoint_path("one", N_STEPS)), "one step: the end is finite")


def passed_over():
    """What a skipped step leaves is the state before it: a last step that is skipped changes nothing."""
    last = environment(HIRL_FAULT="loss:%d" % N_STEPS)
    expect(hirl(*DECK, "run%output='last'", env=last), 0)
    a, b = (
        read_checkpoint(checkpoint_path(run, step)) for run, step in (("straight", 19), ("last", 20))
    )
    # The average of the momentum encoder comes before the forward pass and stays.
    names = [name for name in differing(a, b) if not name.startswith("model/encoder_k")]
    check(not names, "last step: parameters, statistics, queue, optimiser are as before it %s" % names)
    names = [n for n in a if n.startswith("model/encoder_k") and "running_" in n]
    check(
        len(names) > 10 and not [n for n in names if not np.array_equal(a[n], b[n])],
        "last step: %d statistics of the momentum encoder too" % len(names),
    )


def back_to_checkpoint():
    for folder in ("back", "again"):
        result = expect(hirl(*DECK, "run%%output='%s'" % folder, env=faults(5, 8)), 0)
    check(
        "back to the checkpoint of step 4; the batches of steps 5 to 8 stay unused" in result.text,
        "back: the log says where the state is from",
    )
    check_same_bits("back: a second time", "back", "again", N_STEPS)
    check(is_finite(checkpoint_path("back", N_STEPS)), "back: the end is finite")
    check_metrics("back", "back", N_STEPS, [N_STEPS])


def failed(what, result, *words):
    errors = error_lines(result.text)
    fine = result.code == 1 and len(errors) == 1 and all(word in errors[0] for word in words)
    check(fine, "%s: %s" % (what, errors[0] if errors else result))


def the_end():
    result = hirl(*DECK, "run%output='end'", "run%max_rollbacks=1", env=faults(5, 20))
    failed("end", result, "run%max_rollbacks", "optim%lr")
    check(steps_of("end")[-1] == 8, "end: the state gone back to stays, at step 8")
    result = hirl("deck.nml", "run%output='none'", env=faults(1, 20))
    failed("no checkpoint", result, "no checkpoint to go back to", "checkpoint%every_steps")
    result = hirl(*DECK, "run%output='far'", "optim%lr=1e6", "optim%weight_decay=1")
    failed("diverged", result, "diverged", "optim%lr")
    check(
        all(is_finite(checkpoint_path("far", step)) for step in steps_of("far")),
        "diverged: checkpoints %s are finite" % steps_of("far"),
    )


prepare()
expect(hirl(*DECK, "run%output='straight'"), 0)
one_step()
passed_over()
back_to_checkpoint()
the_end()
check_clean("not finite", ".")
finish()
