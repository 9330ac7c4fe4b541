# test: timeout=120 needs=python3-h5py,dataset-fashion-mnist
"""Task bench_input on one rank and two, for training and for evaluation; the times that training logs
add up to the step, and it says where they go."""

import re

import whole_run
from whole_run import check, expect, finish, hirl, metrics, prepare

RATE = re.compile(r"samples_per_s = ([\d.]+) \(slowest rank ([\d.]+)\) ranks = (\d) threads = (\d)")
SHARES = re.compile(
    r"read = ([\d.]+) % decode = ([\d.]+) % views = ([\d.]+) % .* decoded = ([\d.]+) %"
)
BYTES = re.compile(r"read_per_s = ([\d.]+ \S+) bytes_per_sample = (.*) pixels_per_sample = (\d+) ")
TIMES = ("t_data", "t_h2d", "t_compute", "t_comm")


def bench(ranks, *more):
    result = hirl("deck.nml", "run%task='bench_input'", "bench_input%seconds=0.3", *more, ranks=ranks)
    expect(result, 0)
    found = RATE.search(result.text)
    shares = SHARES.search(result.text)
    check(found and shares, "bench_input on %d ranks: no result\n%s" % (ranks, result))
    rate, slowest = map(float, found.group(1, 2))
    check(0 < slowest * ranks <= 1.001 * rate, "rates of %d ranks: %s" % (ranks, found.group(0)))
    check(int(found.group(3)) == ranks, "ranks: " + found.group(0))
    read, decode, views, decoded = map(float, shares.groups())
    # What is left is taking tickets.
    check(50 < read + decode + views <= 100.2, "shares: " + shares.group(0))
    # Images of 28 x 28 bytes.
    stored = BYTES.search(result.text)
    check(stored and stored.group(2, 3) == ("784 B", "784"), "sizes: %s" % result.text)
    return decoded, result


def main():
    prepare()
    for ranks in (1, 2):
        decoded, result = bench(ranks)
        check("2 views a sample made for training" in result.text, "what is made: %s" % result)
        # Two crops of 0.2 to 1 of the area do not cover an image.
        check(30 < decoded < 99, "%.1f %% of the pixels were decoded" % decoded)
        decoded, result = bench(ranks, "bench_input%transform='eval'")
        check("made for evaluation" in result.text, "what is made: %s" % result)
        check(decoded == 100, "%.1f %% of the pixels were decoded" % decoded)
    expect(hirl("deck.nml", "run%task='bench_input'", "data%train='nowhere'", ranks=2), 1)
    expect(hirl("deck.nml", "run%task='bench_input'", "optim%batch=1000000", ranks=2), 1)

    result = hirl("deck.nml", "run%output='run'", "schedule%epochs=2", ranks=2)
    expect(result, 0)
    lines = [line for line in metrics("run/metrics.jsonl") if "t_step" in line]
    check(len(lines) > 0, "no times in metrics.jsonl")
    for line in lines:
        # Each has six digits behind the point.
        apart = abs(sum(line[name] for name in TIMES) - line["t_step"])
        check(apart <= 3e-6, "step %d: parts and step are %g s apart" % (line["step"], apart))
        check(all(line[name] >= 0 for name in TIMES), "step %d: a time below 0" % line["step"])
    said = re.findall(r"bottleneck: (\w+) \(of a step: data ([\d.]+) % upload ([\d.]+) % "
                      r"compute ([\d.]+) % communication ([\d.]+) %\)", result.text)
    # After the first epoch, and at the end.
    check(len(said) == 2, "bottleneck was named %d times: %s" % (len(said), result))
    for name, *parts in said:
        parts = dict(zip(("data", "upload", "compute", "communication"), map(float, parts)))
        check(name == max(parts, key=parts.get), "bottleneck %s of %s" % (name, parts))
        check(abs(sum(parts.values()) - 100) < 0.3, "parts add up to %g" % sum(parts.values()))
    finish()


main()
