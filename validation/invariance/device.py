# test: alone=no timeout=400 needs=python3-h5py,dataset-fashion-mnist
"""Training on run%device = 'cuda' is training on 'cpu', to rounding: HIRL on MoCo v2 in f32,
bf16 and f16, on one rank and on two, with batch statistics within a rank and across ranks; on the
device it repeats its bits, with graphs and without, and a run that is stopped and restarted keeps
them. Then what is told where no device can be had. The device is the emulated one, or, in a build
with CUDA=1, the machine's own (on which two ranks share it, by way of the host)."""

import os
import shutil
import sys

from whole_run import (
    HIRL,
    SMALL,
    check,
    check_clean,
    check_close,
    check_far,
    check_same_bits,
    check_same_metrics,
    checkpoint_path,
    environment,
    error_lines,
    expect,
    finish,
    hirl,
    metrics,
    prepare,
)

EMULATED = os.environ.get("HIRL_X_EMULATED", "")
PROGRAM = EMULATED or HIRL
if EMULATED and not os.access(EMULATED, os.X_OK):
    print("%s did not build" % EMULATED)
    sys.exit(1)
if not EMULATED and not shutil.which("nvidia-smi"):
    print("skip: neither an emulated nor a real CUDA device")
    sys.exit(77)

# bf16 has 8 bits: roundings of 2^-9 in some ten layers, forward and back, leave a loss within 2e-2.
BOUND_BF16 = 2e-2
# f16 has 11: eight times nearer to f32, for as long as the weights are the same; one update of
# weights that start as noise multiplies what gradients differ by (2e-3 seen, bf16 6e-2).
BOUND_F16 = BOUND_BF16 / 8
BOUND_F16_LATER = 1e-2
N_STEPS = 10  # the second clustering is before step 9


def train(device, folder, *changes, ranks=1, code=0, env=(), n_devices=2):
    changes = list(changes)
    if not EMULATED and ranks > 1:
        changes.append("run%allow_gpu_sharing=T")
    return expect(
        hirl(
            "deck.nml",
            *SMALL,
            "run%%output='%s'" % folder,
            "run%%device='%s'" % device,
            "schedule%epochs=1.25",
            "data%val=''",
            *changes,
            ranks=ranks,
            program=PROGRAM,
            env=environment(HIRL_EMU_DEVICES=str(n_devices), **dict(env))
        ),
        code,
    )


def compare(what, ranks, *changes):
    def start(way, seed):
        device = ("cpu", "cuda")[way]
        folder = "%s_%s_seed%d" % (what.replace(" ", "_"), device, seed)
        result = train(device, folder, "run%%seed=%d" % seed, *changes, ranks=ranks)
        check(
            ("backend: " + device) in result.text, "%s: the log names backend %s" % (what, device)
        )
        return folder

    check_close(what, start, N_STEPS)


def losses(folder):
    return [
        line["loss"] for line in metrics(os.path.join(folder, "metrics.jsonl")) if "loss" in line
    ]


prepare()
compare("one rank", 1)
compare("two ranks", 2)
compare("two ranks, statistics across them", 2, "model%bn_group=32")
train("cuda", "other", "views%brightness=0.1")
check_far("control: another brightness", "one_rank_cpu_seed0", "other")

for device in ("cpu", "cuda"):
    train(device, "bf16_" + device, "run%precision='bf16'")
a, b = losses("bf16_cpu"), losses("bf16_cuda")
worst = max(abs(x / y - 1) for x, y in zip(a[:2], b[:2]))
check(
    len(a) == len(b) == N_STEPS and worst <= BOUND_BF16,
    "bf16: losses of the first steps within %.1e" % worst,
)

# f16, on two ranks, with a loss scale that doubles every second step; a fault point on rank 0
# alone makes the third's gradient infinite. It is left out on both, as no failure, and the scale
# halves. Started again from step 4, between doubling and doubling, the run keeps its bits.
HALF = (
    "run%precision='f16'",
    "run%seed=0",
    "run%loss_scale=1024",
    "run%loss_scale_steps=2",
    "run%log_every=1",
)
FAULT = {"HIRL_FAULT": "gradient:3"}.items()
SCALES = [1024, 2048, 1024, 1024, 2048, 2048]
result = train("cuda", "f16", *HALF, "run%max_steps=6", ranks=2, env=FAULT)
a, b = losses("two_ranks_cuda_seed0"), losses("f16")
apart = [abs(x / y - 1) for x, y in zip(a[:2], b[:2])]
check(
    apart[0] <= BOUND_F16 and apart[1] <= BOUND_F16_LATER,
    "f16: losses of the first steps within %.1e and %.1e of f32's" % tuple(apart),
)
scales = [line["loss_scale"] for line in metrics("f16/metrics.jsonl") if "loss" in line]
check(scales == SCALES, "f16: loss scales %s" % scales)
check(
    [i for i, loss in enumerate(b) if loss is None] == [2]
    and "step 3: gradients are not finite at a loss scale of 2048" in result.text
    and "a loss or the gradient" not in result.text,
    "f16: step 3 alone is left out, and is no failure",
)
shutil.copytree("f16", "f16_stopped")
for step in (5, 6):
    os.remove(checkpoint_path("f16_stopped", step))
train("cuda", "f16_stopped", *HALF, "run%max_steps=6", ranks=2)
check_same_bits("f16, restarted", "f16", "f16_stopped", 6)
check_same_metrics("f16, restarted", "f16", "f16_stopped")
result = train("cpu", "f16_cpu", *HALF, code=1)
check(
    "run%precision = 'f16'" in result.text and "'bf16'" in result.text,
    "f16 on the processor: %s" % error_lines(result.text)[:1],
)

train("cuda", "again", "run%seed=0")
check_same_bits("repeated", "one_rank_cuda_seed0", "again", N_STEPS)
train("cuda", "stopped", "run%seed=0", "run%max_steps=5")
result = train("cuda", "stopped", "run%seed=0")
check("step = 5 " in result.text, "restart: goes on after step 5")
check_same_bits("restarted", "one_rank_cuda_seed0", "stopped", N_STEPS)
check_same_metrics("restarted", "one_rank_cuda_seed0", "stopped")

# Passes recorded as graphs, as all of the above, give the bits that they give operation by
# operation: with a queue, shuffles, paths and centroids that change from step to step; of two
# ranks' micro-batches, recorded again when the first clustering adds a loss (before step 9).
GRAPHS = "graphs: forward and backward pass are launched as one from step 4 on"
result = train("cuda", "eager", "run%seed=0", "run%graph=F")
check("graphs:" not in result.text, "run%graph = .false.: no word of graphs")
check_same_bits("without graphs", "one_rank_cuda_seed0", "eager", N_STEPS)
check_same_metrics("without graphs", "one_rank_cuda_seed0", "eager")
if EMULATED:
    # Where the device refuses, all goes on as without.
    env = {"HIRL_EMU_FAIL": "cudaGraphInstantiate:1"}
    result = train("cuda", "refused", "run%seed=0", "run%max_steps=5", env=env.items())
    check("graphs: off, operations are launched one by one: " in result.text, "refused: said so")
    check_same_bits("refused", "one_rank_cuda_seed0", "refused", 5)
MICRO = (
    "run%seed=0",
    "optim%accumulate=2",
    "model%bn_group=4",
    "hirl%cluster_warmup_epoch=1",
    "schedule%epochs=1.625",
)
train("cuda", "micro_eager", "run%graph=F", *MICRO, ranks=2)
result = train("cuda", "micro", *MICRO, ranks=2)
if EMULATED:
    check(GRAPHS in result.text, "two micro-batches: " + GRAPHS)
check_same_bits("two micro-batches without graphs", "micro", "micro_eager", 13)
check_same_metrics("two micro-batches without graphs", "micro", "micro_eager")

# In the steady state nothing is allocated: neither device nor host asks the system for more after
# the first step, nor after the passes are recorded.
for switch, last in (("F", "step = 1/"), ("T", GRAPHS)):
    result = train(
        "cuda",
        "steady_" + switch,
        "run%log_level='debug'",
        "run%hierarchy='none'",
        "run%max_steps=6",
        "run%graph=" + switch,
    )
    lines = result.text.splitlines()
    asked = [i for i, line in enumerate(lines) if "device memory: " in line]
    at = next((i for i, line in enumerate(lines) if last in line), 0)
    check(
        asked and at and asked[-1] < at,
        "%d requests for device memory, all before '%s'" % (len(asked), last),
    )

# ------------------------------------------------------------------------ what can go wrong

ONE_DEVICE = {"HIRL_EMU_OWNER": "1"}  # otherwise each process has an emulated one of its own
if EMULATED:
    for what, ranks, n_devices, env, wanted in (
        ("no device", 1, 0, {}, "no CUDA d"),
        ("two ranks, one device", 2, 1, ONE_DEVICE, "share one GPU"),
        ("little memory", 1, 1, {"HIRL_EMU_MEMORY": str(1 << 20)}, "device 0: this rank holds"),
        ("NCCL fails", 2, 2, {"HIRL_EMU_FAIL": "ncclAllReduce:2"}, "NCCL: "),
        ("NCCL does not start", 2, 2, {"HIRL_EMU_FAIL": "ncclGetUniqueId:1"}, "NCCL: "),
        ("a copy fails", 1, 1, {"HIRL_EMU_FAIL": "cudaMemcpyAsync:40"}, "CUDA: "),
    ):
        folder = "fault_" + what.replace(" ", "_").replace(",", "")
        result = train(
            "cuda", folder, ranks=ranks, n_devices=n_devices, env=env.items(), code=1
        )
        lines = error_lines(result.text)
        check(
            any(wanted in line for line in lines),
            "%s: '%s', after %.1f s" % (what, lines[0] if lines else result, result.seconds),
        )
        check_clean(what, folder)
    result = train(
        "cuda", "shared", "run%allow_gpu_sharing=T", ranks=2, n_devices=1, env=ONE_DEVICE.items()
    )
    check_same_metrics("two ranks, one device, allowed", "shared", "two_ranks_cuda_seed0")

finish()
