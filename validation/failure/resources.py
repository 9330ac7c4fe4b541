# test: timeout=200 needs=python3-h5py,dataset-fashion-mnist
"""What a machine can take away while a run is under way: shards that are cut short or removed, descriptors, memory, the right to
write, the clock. The run ends with a message, or goes on where it can; nothing that was whole is lost."""

import os
import shutil
import subprocess
import sys

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

# Mounts of an own namespace are gone with the process, whatever ends it.
if os.geteuid() == 0 and "HIRL_MOUNTS" not in os.environ:
    if subprocess.call(["unshare", "-m", "true"], stderr=subprocess.DEVNULL) == 0:
        os.environ["HIRL_MOUNTS"] = "own"
        os.execvp("unshare", ["unshare", "-m", sys.executable, os.path.abspath(__file__)])


def judge(what, result, *words):
    errors = error_lines(result.text)
    fine = result.code == 1 and len(errors) == 1 and all(word in errors[0] for word in words)
    check(fine, "%s: %s" % (what, errors[0] if errors else "no message"))
    if not fine:
        print("expected exit code 1, one message with %s\n%s" % (words, result))


def shard_cut_short(access):
    """Then put back: the run goes on to the bits of one that was left alone."""
    shutil.rmtree("copy", ignore_errors=True)
    shutil.copytree("data", "copy")
    folder = "cut_" + access
    args = ("deck.nml", "data%train='copy/train-*.h5'", "data%%access='%s'" % access)
    args += ("run%%output='%s'" % folder, "checkpoint%every_steps=1", "schedule%epochs=40")
    job = Started(*args)
    job.wait_for_step(folder + "/metrics.jsonl", 3)
    os.truncate("copy/train-00000.h5", 20000)
    judge("a shard cut short, " + access, job.finish(), "train-00000.h5", "cut short")
    last = steps_of(folder)[-1]
    shutil.copy("data/train-00000.h5", "copy/train-00000.h5")
    result = expect(hirl(*args, "run%%max_steps=%d" % (last + 2)), 0)
    check("restart: from" in result.text, "put back: goes on from step %d" % last)
    return folder, last + 2


def shard_removed():
    """What is open stays readable."""
    shutil.rmtree("copy", ignore_errors=True)
    shutil.copytree("data", "copy")
    job = Started("deck.nml", "data%train='copy/train-*.h5'", "run%output='removed'")
    job.wait_for_step("removed/metrics.jsonl", 1)
    os.remove("copy/train-00000.h5")
    result = job.finish()
    check(result.code == 0, "a shard removed: the run reaches its end (%s)" % result.code)
    check_same_bits("a shard removed", "straight", "removed", 20)


def limited(limits, *args):
    """One rank without mpirun, under the shell's limits."""
    return run(["/bin/sh", "-c", 'ulimit %s; exec "$0" "$@"' % limits, HIRL, *args], timeout=60)


def descriptors():
    """The shard set needs one each where it does not map them; MPI and logs have theirs first."""
    os.makedirs("many", exist_ok=True)
    for i in range(60):
        shutil.copy("data/train-00000.h5", "many/train-%05d.h5" % i)
    args = ("deck.nml", "data%train='many/train-*.h5'", "run%output='fds'", "run%max_steps=1")
    judge("descriptors", limited("-n 48", *args, "data%access='pread'"), "many/train-", "ulimit -n")
    expect(limited("-n 48", *args), 0)
    check(True, "descriptors: mapped shards need none")


def memory():
    args = ("deck.nml", "mocov2%queue=67108864", "mocov2%dim=64", "run%output='memory'")  # 16 GiB
    judge("memory", limited("-v %d" % (8 << 20), *args), "16.00 GiB", "holds")


def read_only():
    os.mkdir("disk")
    if (
        "HIRL_MOUNTS" not in os.environ
        or subprocess.call(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", "disk"]) != 0
    ):
        print("      nothing can be mounted here: the read-only folder is left out")
        return
    args = ("deck.nml", "run%output='disk/run'", "checkpoint%every_steps=1")
    try:
        expect(hirl(*args, "run%max_steps=4"), 0)
        subprocess.check_call(["mount", "-o", "remount,ro,size=64m", "disk"])
        found = steps_of("disk/run")
        judge("read-only", hirl(*args), "disk/run", "Read-only file system")
        check(steps_of("disk/run") == found, "read-only: checkpoints %s stay" % found)
    finally:
        subprocess.call(["umount", "-l", "disk"])


# The clock of the day goes back two days after ten looks at it, and ahead a year after thirty.
CLOCK = """
#include <dlfcn.h>
#include <time.h>
static long jump(void) {
    static int n;
    const int now = __atomic_add_fetch(&n, 1, __ATOMIC_RELAXED);
    return now < 10 ? 0 : now < 30 ? -172800 : 31536000;
}
int clock_gettime(clockid_t id, struct timespec *time) {
    int (*real)(clockid_t, struct timespec *);
    *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
    const int answer = real(id, time);
    if (id == CLOCK_REALTIME) time->tv_sec += jump();
    return answer;
}
time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"""


def clock():
    """Only what is printed as the time of day follows it."""
    with open("clock.c", "w") as file:
        file.write(CLOCK)
    compiler = os.environ.get("CC") or "cc"
    command = [compiler, "-D_GNU_SOURCE", "-shared", "-fPIC", "-o", "clock.so", "clock.c", "-ldl"]
    subprocess.check_call(command)
    preload = "LD_PRELOAD=" + os.path.abspath("clock.so")
    args = ("deck.nml", "run%output='clock'", "run%timeout=20", "checkpoint%every_steps=7")
    for stop in (12, 20):  # and a restart
        more = "run%%max_steps=%d" % stop
        result = expect(run([*MPIRUN, "-n", "2", "-x", preload, HIRL, *args, more]), 0)
    check("restart: from" in result.text, "clock: the restart takes the newest checkpoint")
    check_same_bits("clock", "straight", "clock", 20)
    lines = check_metrics("clock", "clock", 20, [20])
    steps = [line for line in lines if "loss" in line]
    times = [line["time"] for line in steps]
    jumps = [b - a for a, b in zip(times, times[1:])]
    check(min(jumps) < -100000 and max(jumps) > 100000, "clock: it did jump")
    check(
        all(0 < line["t_step"] < 60 and line["images_per_s"] > 0 for line in steps),
        "clock: steps take the time that they take",
    )
    check("watchdog" not in result.text, "clock: no word of the watchdog")


prepare()
expect(hirl("deck.nml", "run%output='straight'"), 0)
(a, step_a), (b, step_b) = (shard_cut_short(access) for access in ("mmap", "pread"))
expect(hirl("deck.nml", "run%output='long'", "checkpoint%every_steps=1", "schedule%epochs=40",
            "run%%max_steps=%d" % max(step_a, step_b)), 0)
check_same_bits("cut short and put back, mmap", "long", a, step_a)
check_same_bits("cut short and put back, pread", "long", b, step_b)
shard_removed()
descriptors()
memory()
clock()
read_only()
check_clean("resources", "straight", "removed", a, b)
finish()
