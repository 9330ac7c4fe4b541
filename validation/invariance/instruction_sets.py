#!/usr/bin/python3
# test: timeout=120 needs=mpicc,gcc
"""A package for any x86-64 makes the views of a build for this very processor, bit for bit: the
loops of src/data/augment*.c as compiled for the oldest x86-64, the same with copies for newer
instruction sets that are chosen at run time (src/data/clones_impl.h), and the build under test.

    instruction_sets.py          without resampling, turning and shearing, which take a minute to
                                 compile; validation/bench/views.py compares these as well
"""
import concurrent.futures
import os
import platform
import subprocess
import sys
import tempfile

BUILD = os.environ.get("HIRL_BUILD", "build/release")
FLAGS = "-std=c17 -D_GNU_SOURCE -O3 -DNDEBUG -ffp-contract=off -fno-math-errno -Iinclude -w"
QUICK = ("augment", "augment_blur", "augment_color", "augment_tone")
ALL = QUICK + ("augment_rand", "augment_resize", "augment_warp")
SETS = {
    "oldest": "-march=x86-64 -DHIRL_NO_CLONES",
    "package": "-march=x86-64",
    "native": "",  # as the library was built
}


def run(command):
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if result.returncode:
        sys.exit("%s\n%s" % (" ".join(command), result.stdout))
    return result.stdout


def compile_one(job):
    name, source, folder = job
    target = os.path.join(folder, "%s_%s.o" % (name, os.path.basename(source)))
    flags = FLAGS.split() + ["-fno-trapping-math", "-fopenmp"] + SETS[name].split()
    run(["mpicc"] + flags + ["-c", source, "-o", target])
    return target


def build(names, sources, folder):
    """Programs by name; objects come before the library, whose own are then not taken."""
    jobs = [(n, "src/data/%s.c" % s, folder) for n in names if SETS[n] for s in sources]
    jobs.sort(key=lambda job: "resize" not in job[1])
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_one, jobs))
    driver = compile_one((names[0], "validation/bench/views.c", folder))
    programs = {}
    for name in names:
        own = [o for job, o in zip(jobs, objects) if job[0] == name]
        programs[name] = os.path.join(folder, name)
        libraries = [BUILD + "/libhirl.a", "-fopenmp", "-lxxhash", "-lm"]
        run(["mpicc", "-o", programs[name], driver] + own + libraries)
    return programs


def measure(programs, seconds):
    """{program: {recipe: (views per second, hash)}}"""
    rows = {n: [r.split() for r in run([p, str(seconds)]).splitlines()]
            for n, p in programs.items()}
    return {n: {r[0]: (float(r[1]), r[2]) for r in table} for n, table in rows.items()}


def differences(results):
    first = next(iter(results.values()))
    assert len(first) == 6, first
    found = []
    for name, table in results.items():
        for recipe, (_, value) in table.items():
            if value != first[recipe][1]:
                found.append("%s: views of '%s' differ from the first's" % (name, recipe))
    return found


def main():
    if platform.machine() != "x86_64":
        print("skip: this is no x86-64")
        sys.exit(77)
    with tempfile.TemporaryDirectory(dir=os.environ.get("HIRL_TMP")) as folder:
        programs = build(list(SETS), QUICK, folder)
        symbols = run(["nm", programs["package"]])
        found = differences(measure(programs, 0))
        if "hirl_span_hue.arch_x86_64_v3" not in symbols:
            found.append("the package has no copy of hirl_span_hue for x86-64-v3")
    print("\n".join(found) or "three builds, the same bits")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
