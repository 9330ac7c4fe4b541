# test: alone=no timeout=300 needs=python3-h5py,dataset-fashion-mnist
"""The same run again has the same bits, whatever must not matter: what fresh memory holds, the
threads and depth of the loader, how shards are read, how much is logged, how often a checkpoint
is written, the debug build with sanitizers (no fast-math, no contraction, so the optimiser of the
compiler changes no value).

The number of compute threads is not among them: oneDNN splits its sums by it. That changes
roundings, no more.
"""

import os

from whole_run import (
    SANITIZED,
    SMALL,
    check,
    check_close,
    check_far,
    check_metrics,
    check_same_bits,
    check_same_metrics,
    environment,
    expect,
    finish,
    hirl,
    prepare,
)

N_STEPS = 10  # a clustering before steps 1 and 9
RUN = ("deck.nml", "hirl%cluster_warmup_epoch=0", "schedule%epochs=1.25", "knn%every_epochs=0.5")


def same(what, *changes, **how):
    folder = what.replace(" ", "_")
    expect(hirl(*RUN, "run%%output='%s'" % folder, *changes, **how), 0)
    check_same_bits(what, "first", folder, N_STEPS)
    check_same_metrics(what, "first", folder)


def same_in_debug_build():
    if not os.access(SANITIZED, os.X_OK):
        check(not os.environ.get("HIRL_X_SANITIZED"), "debug build: %s is missing" % SANITIZED)
        return
    # Open MPI's plugins leak, and are gone when the names are looked up; leaks are looked for
    # without mpirun
    env = environment(
        ASAN_OPTIONS="detect_leaks=0:exitcode=99",
        UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1",
    )
    same("debug", program=SANITIZED, env=env)


def threads(way, seed):
    folder = "threads%d_seed%d" % (way + 1, seed)
    expect(
        hirl(
            "deck.nml",
            *SMALL,
            "run%%output='%s'" % folder,
            "run%%seed=%d" % seed,
            "run%%threads=%d" % (way + 1),
            "schedule%epochs=1.25",
            "data%val=''",
            ranks=1
        ),
        0,
    )
    return folder


prepare()
expect(hirl(*RUN, "run%output='first'"), 0)
check_metrics("first", "first", N_STEPS, [4, 8, 10])
same("again")
# 0xa5 and 0x5a on what malloc gives, the complement on what is freed: a value nobody set shows
same("memory a5", env=environment(MALLOC_PERTURB_="90"))
same("memory 5a", env=environment(MALLOC_PERTURB_="165"))
same("loader", "data%n_threads=3", "data%n_ahead=1", "data%access='pread'", "data%verify=.true.")
same(
    "log",
    "run%log_level='trace'",
    "checkpoint%every_steps=3",
    "checkpoint%keep=2",
    "optim%bucket_mib=0.01",
)
same_in_debug_build()
check_close("2 compute threads", threads, N_STEPS)
expect(hirl(*RUN, "run%output='other'", "views%flip_prob=0.4", "checkpoint%every_steps=1"), 0)
expect(hirl(*RUN, "run%output='every'", "checkpoint%every_steps=1"), 0)
check_far("views that differ a little", "every", "other")
finish()
