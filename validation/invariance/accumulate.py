# test: alone=no timeout=200 needs=python3-h5py,dataset-fashion-mnist
"""Micro-batches compute the same step as one batch, to rounding, where batch statistics fit into
a micro-batch.

Keys are shuffled within a micro-batch, which changes who shares their statistics; so the shuffle
is off here.
"""

from whole_run import SMALL, check_close, check_far, expect, finish, hirl, prepare

N_STEPS = 10
done = set()


def start(accumulate, seed, ranks, *more):
    folder = "_".join(
        [
            "accumulate%d" % accumulate,
            "seed%d" % seed,
            "ranks%d" % ranks,
            *(m.replace("%", "-") for m in more),
        ]
    )
    if folder not in done:
        expect(
            hirl(
                "deck.nml",
                *SMALL,
                "run%%output='%s'" % folder,
                "run%%seed=%d" % seed,
                "mocov2%shuffle=.false.",
                "optim%%accumulate=%d" % accumulate,
                "schedule%epochs=1.25",
                "data%val=''",
                *more,
                ranks=ranks
            ),
            0,
        )
        done.add(folder)
    return folder


prepare()
for accumulate, ranks in ((2, 1), (4, 1), (2, 2)):
    check_close(
        "%d micro-batches on %d ranks" % (accumulate, ranks),
        lambda way, seed: start((1, accumulate)[way], seed, ranks),
        N_STEPS,
    )
check_far("the learning rate doubled", start(1, 0, 1), start(1, 0, 1, "optim%lr=0.12"))
finish()
