# test: alone=no timeout=300 needs=python3-h5py,dataset-fashion-mnist
"""1, 2 and 4 ranks compute the same run, to rounding: order, views, keys' shuffle, negative paths
and groups of batch statistics are those of the global batch. Sums differ in their order, and
oneDNN takes other kernels for other batch sizes; hence no equal bits. The bounds are in
whole_run.py."""

from whole_run import (
    ROUNDING,
    SMALL,
    check,
    check_close,
    check_far,
    checkpoint_path,
    differing,
    expect,
    farthest,
    finish,
    hirl,
    prepare,
    read_checkpoint,
)

N_STEPS = 10  # the second clustering is before step 9
done = set()


def start(ranks, seed, bn_group):
    """The folder of a run; runs it once."""
    folder = "ranks%d_seed%d_group%d" % (ranks, seed, bn_group)
    if folder not in done:
        expect(
            hirl(
                "deck.nml",
                *SMALL,
                "run%%output='%s'" % folder,
                "run%%seed=%d" % seed,
                "model%%bn_group=%d" % bn_group,
                "schedule%epochs=1.25",
                "data%val=''",
                ranks=ranks
            ),
            0,
        )
        done.add(folder)
    return folder


def go_on(ranks_before, ranks):
    """A checkpoint does not know how many ranks wrote it."""
    for seed in (0, 1, 2):
        source = start(ranks_before, seed, 8)
        folder = "from%d_on%d_seed%d" % (ranks_before, ranks, seed)
        result = expect(
            hirl(
                "deck.nml",
                *SMALL,
                "run%%output='%s'" % folder,
                "run%%seed=%d" % seed,
                "schedule%epochs=1.25",
                "checkpoint%%restart='%s'" % checkpoint_path(source, 1),
                "run%max_steps=2",
                "data%val=''",
                ranks=ranks
            ),
            0,
        )
        a, b = (read_checkpoint(checkpoint_path(run, 2)) for run in (source, folder))
        if farthest(a, b)[0] <= ROUNDING:
            break
    what = "from %d ranks to %d" % (ranks_before, ranks)
    check("step = 1 " in result.text, "%s: goes on after step 1" % what)
    integers = [name for name in differing(a, b) if a[name].dtype.kind != "f"]
    check(
        not integers and farthest(a, b)[0] <= ROUNDING,
        "%s: step 2 within %.1e (%s)" % ((what,) + farthest(a, b)),
    )


prepare()
# groups within a rank; across two of four ranks; over all
for bn_group in (8, 16, 0):
    for ranks in (2, 4):
        check_close(
            "%d ranks, bn_group = %d" % (ranks, bn_group),
            lambda way, seed: start((1, ranks)[way], seed, bn_group),
            N_STEPS,
        )
for ranks_before, ranks in ((1, 2), (1, 4), (2, 1), (2, 4)):
    go_on(ranks_before, ranks)
check_far("another bn_group", start(1, 0, 8), start(1, 0, 16))
check_far("another seed", start(1, 0, 8), start(1, 1, 8))
finish()
