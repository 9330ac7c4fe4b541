#!/usr/bin/python3
"""Where a training step's time goes on a GPU: the ten kernels that take most of it.

step_kernels.py [--batch N] runs build/<variant>/bench/step under ncu, or else nsys, which see one
step alone. Kernels of one name are added up. With ncu each line also has the bytes that went
through the card's memory, and how close that and the multiprocessors came to the card's limits,
means weighted by time. Prints `row: WHAT = RESULT` lines; exit code 77 where there is no profiler.
"""
import argparse
import csv
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile

BUILD = os.environ.get("HIRL_BUILD", "build/release-cuda")
TIME, BYTES = "gpu__time_duration.sum", "dram__bytes.sum"
MEMORY = "dram__throughput.avg.pct_of_peak_sustained_elapsed"
COMPUTE = "sm__throughput.avg.pct_of_peak_sustained_elapsed"
N_SHOWN = 10


def skip(reason):
    print(f"skip: {reason}")
    sys.exit(77)


def run(command, **more):
    print(f"$ {' '.join(command)}", flush=True)
    env = dict(os.environ, HIRL_BENCH_PROFILE="1")
    done = subprocess.run(command, capture_output=True, text=True, env=env, **more)
    print(done.stdout[-2000:] + done.stderr[-2000:], flush=True)
    if done.returncode != 0:
        said = (done.stderr + done.stdout).strip().splitlines() or ["nothing"]
        sys.exit(f"{os.path.basename(command[0])}: exit code {done.returncode}: {said[-1][:160]}")
    return done.stdout


def number(text):
    return float(text.replace(",", "")) if text not in ("", "n/a") else 0.0


def short(name):
    """A kernel's name without its arguments, templates and spaces of names."""
    name = re.sub(r"^(void|static) ", "", name)
    while re.search(r"<[^<>]*>", name):
        name = re.sub(r"<[^<>]*>", "", name)
    return name.split("(")[0].split("::")[-1].strip()[:70] or "?"


def table_of(text, first):
    """Rows of the CSV table whose header begins with `first`; what is printed around it is not."""
    lines = text.splitlines()
    starts = [i for i, line in enumerate(lines) if line.lstrip('"').startswith(first)]
    if not starts:
        sys.exit(f"no table in the profiler's output:\n{text[-2000:]}")
    return list(csv.DictReader(io.StringIO("\n".join(lines[starts[0]:]))))


def by_ncu(step, folder):
    log = os.path.join(folder, "ncu.csv")
    metrics = ",".join((TIME, BYTES, MEMORY, COMPUTE))
    run(["ncu", "--profile-from-start", "off", "--clock-control", "none", "--csv", "--page", "raw",
         "--print-units", "base", "--metrics", metrics, "--log-file", log, *step])
    with open(log) as file:
        rows = table_of(file.read(), "ID")
    kernels = {}
    for r in rows:
        if not r["ID"].strip():
            continue  # units
        name = short(r["Kernel Name"])
        k = kernels.setdefault(name, dict(n=0, ns=0, bytes=0, memory=0, compute=0))
        ns = number(r[TIME])
        k["n"] += 1
        k["ns"] += ns
        k["bytes"] += number(r[BYTES])
        k["memory"] += ns * number(r[MEMORY])
        k["compute"] += ns * number(r[COMPUTE])
    return kernels


def by_nsys(step, folder):
    out = os.path.join(folder, "step")
    run(["nsys", "profile", "-t", "cuda", "-s", "none", "--capture-range=cudaProfilerApi",
         "--capture-range-end=stop", "--force-overwrite=true", "-o", out, *step])
    report_of = ["nsys", "stats", "--report", "cuda_gpu_kern_sum", "--format", "csv"]
    text = run([*report_of, out + ".nsys-rep"])
    kernels = {}
    for r in table_of(text, "Time (%)"):
        if not r.get("Name"):
            continue
        k = kernels.setdefault(short(r["Name"]), dict(n=0, ns=0))
        k["n"] += int(number(r["Instances"]))
        k["ns"] += number(r["Total Time (ns)"])
    return kernels


def report(kernels, tool):
    total = sum(k["ns"] for k in kernels.values())
    if total <= 0:
        sys.exit(f"{tool} saw no kernel")
    launches = sum(k["n"] for k in kernels.values())
    print(f"row: kernels of one step, by {tool} = {launches} launches, {1e-6 * total:.2f} ms")
    order = sorted(kernels.items(), key=lambda item: -item[1]["ns"])
    for name, k in order[:N_SHOWN]:
        text = f"{100 * k['ns'] / total:.1f} %, {1e-6 * k['ns']:.3f} ms in {k['n']}"
        if "bytes" in k and k["ns"] > 0:
            text += (f"; {1e-3 * k['bytes'] / k['ns']:.3f} TB/s, memory at "
                     f"{k['memory'] / k['ns']:.0f} %, multiprocessors at "
                     f"{k['compute'] / k['ns']:.0f} % of their limits")
        print(f"row: kernel {name} = {text}")
    rest = sum(k["ns"] for _, k in order[N_SHOWN:])
    if rest > 0:
        print(f"row: {len(order) - N_SHOWN} other kernels = {100 * rest / total:.1f} %")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--emulated", action="store_true")
    a = parser.parse_args()
    if a.emulated:
        run([f"{BUILD}/bench/step", "resnet18", "cifar", "8", "8", "1", "f32", "cuda"])
        skip("an emulated device has no kernels for a profiler")
    step = [f"{BUILD}/bench/step", "resnet50", "imagenet", "224", str(a.batch), "1", "bf16", "cuda"]
    step.append("run%deterministic=.false.")  # as gpu_step.py's fastest
    with tempfile.TemporaryDirectory() as folder:
        if shutil.which("ncu"):
            report(by_ncu(step, folder), "ncu")
        elif shutil.which("nsys"):
            report(by_nsys(step, folder), "nsys")
        else:
            skip("neither ncu nor nsys is on PATH")
    return 0


if __name__ == "__main__":
    sys.exit(main())
