# test: alone=no timeout=300 needs=python3-h5py,python3-protobuf,python3-crcmod,dataset-fashion-mnist
"""What a run logs has each step once, whenever it was stopped: metrics.jsonl, TensorBoard's events.

The events are decoded by two readers that share nothing with the writer: Google's protobuf with the
messages described here by their public field numbers and crcmod's CRC-32C, and TensorBoard's own
where there is a Python that has it (this one, or HIRL_TENSORBOARD_PYTHON; Debian has no package).
"""

import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys

import crcmod.predefined
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from whole_run import (
    Started,
    check,
    check_clean,
    check_same_metrics,
    expect,
    finish,
    hirl,
    metrics,
    prepare,
)

N_STEPS = 20
LOG_EVERY = 3  # no divisor of an epoch, of the steps, or of the distance of checkpoints
ARGS = (
    "deck.nml",
    "run%%log_every=%d" % LOG_EVERY,
    "knn%every_epochs=1",
    "checkpoint%every_steps=2",
)
TENSORBOARD = """
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
accumulator = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0})
accumulator.Reload()
found = {tag: [(e.step, e.value) for e in accumulator.Scalars(tag)]
         for tag in accumulator.Tags()["scalars"]}
print(json.dumps(found))
"""

# ------------------------------------------------------------------------ an independent reader


def event_class():
    """Event, Summary and SessionLog with the fields that are looked at."""
    file = descriptor_pb2.FileDescriptorProto(name="events.proto", package="t", syntax="proto3")
    kind = descriptor_pb2.FieldDescriptorProto
    for name, fields in {
        "Value": (("tag", 1, kind.TYPE_STRING), ("simple_value", 2, kind.TYPE_FLOAT)),
        "Summary": (("value", 1, ".t.Value"),),
        "SessionLog": (("status", 1, kind.TYPE_INT32),),
        "Event": (
            ("wall_time", 1, kind.TYPE_DOUBLE),
            ("step", 2, kind.TYPE_INT64),
            ("file_version", 3, kind.TYPE_STRING),
            ("summary", 5, ".t.Summary"),
            ("session_log", 7, ".t.SessionLog"),
        ),
    }.items():
        message = file.message_type.add(name=name)
        for field_name, number, of in fields:
            field = message.field.add(name=field_name, number=number, label=kind.LABEL_OPTIONAL)
            if isinstance(of, str):
                field.type, field.type_name = kind.TYPE_MESSAGE, of
            else:
                field.type = of
            if name == "Summary":
                field.label = kind.LABEL_REPEATED
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.MessageFactory(pool).GetPrototype(pool.FindMessageTypeByName("t.Event"))


EVENT = event_class()
CRC = crcmod.predefined.mkPredefinedCrcFun("crc-32c")


def masked(data):
    crc = CRC(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def event_files(run):
    return sorted(name for name in os.listdir(run) if "tfevents" in name)


def read_file(path):
    """All events of a file; None if it is not whole."""
    with open(path, "rb") as file:
        data = file.read()
    events, at = [], 0
    while at < len(data):
        head = data[at : at + 12]
        if len(head) < 12 or masked(head[:8]) != struct.unpack("<I", head[8:])[0]:
            print("      bad head at byte %d of %d" % (at, len(data)))
            return None
        size = struct.unpack("<Q", head[:8])[0]
        body, tail = data[at + 12 : at + 12 + size], data[at + 12 + size : at + 16 + size]
        if len(tail) < 4 or masked(body) != struct.unpack("<I", tail)[0]:
            print("      bad record at byte %d of %d" % (at, len(data)))
            return None
        event = EVENT()
        event.ParseFromString(body)
        if event.UnknownFields():
            print("      unknown fields in the record at byte %d" % at)
            return None
        events.append(event)
        at += 16 + size
    return events


def read_events(run):
    """All events of the run's last file; None if it is not whole, or more than one file before it
    is left or tells more than its version."""
    *earlier, last = event_files(run)
    for name in earlier:
        events = read_file(os.path.join(run, name))
        if len(earlier) > 1 or not events or len(events) != 1 or not events[0].file_version:
            print("      earlier files: %s" % earlier)
            return None
    return read_file(os.path.join(run, last))


def scalars_of(events):
    scalars = {}
    for event in events:
        for value in event.summary.value:
            scalars.setdefault(value.tag, []).append((event.step, value.simple_value))
    return scalars


# ------------------------------------------------------------------------ comparison

NO_SCALAR = ("step", "time", "samples_seen", "partial_steps")
SHARES = {"t_data": "data_share", "t_h2d": "h2d_share", "t_compute": "compute_share"}
SHARES["t_comm"] = "comm_share"


def tag_of(key):
    if key.startswith("knn_"):
        return "knn/" + key[4:]
    if key in SHARES:
        return "time/" + SHARES[key]
    if key == "t_step":
        return "time/step_seconds"
    return ("time/" if key == "images_per_s" else "train/") + key


def wanted_scalars(run):
    """What metrics.jsonl says, as single precision."""
    scalars = {}
    for line in metrics(os.path.join(run, "metrics.jsonl")):
        if "restart" in line or "open_steps" in line:
            continue
        for key, value in line.items():
            if key in NO_SCALAR or (key == "epoch" and "loss" not in line):
                continue
            number = float("nan") if value is None else value
            number = number / line["t_step"] if key in SHARES else number
            scalars.setdefault(tag_of(key), []).append((line["step"], float(np.float32(number))))
    return scalars


def check_events(what, run):
    events = read_events(run)
    if not check(events, "%s: the event file is whole, each checksum is right" % what):
        return {}
    check(
        events[0].file_version == "brain.Event:2" and events[1].session_log.status == 1,
        "%s: it begins with its version and a start" % what,
    )
    found, wanted = scalars_of(events), wanted_scalars(run)
    differ = [tag for tag in sorted(set(found) | set(wanted)) if found.get(tag) != wanted.get(tag)]
    check(
        found and not differ,
        "%s: %d scalars are those of metrics.jsonl%s"
        % (what, len(found), "; not so: " + ", ".join(differ) if differ else ""),
    )
    rising = all(
        all(a[0] < b[0] for a, b in zip(points, points[1:])) for points in found.values()
    )
    check(rising, "%s: the steps of each scalar rise" % what)
    times = [event.wall_time for event in events[2:]]
    check(times == sorted(times) and times[0] > 1.6e9, "%s: times are of the clock and rise" % what)
    return found


def check_same(what, run):
    """The same as the undisturbed run."""
    check_same_metrics(what, "straight", run)
    found = check_events(what, run)
    fixed = [tag for tag in found if not tag.startswith("time/")]
    wanted = scalars_of(read_events("straight"))
    differ = [tag for tag in wanted if tag in fixed and wanted[tag] != found[tag]]
    check(
        set(wanted) == set(found) and len(fixed) >= 8 and not differ,
        "%s: %d scalars of the events are those of the undisturbed run" % (what, len(fixed)),
    )


def restarts(run):
    lines = metrics(os.path.join(run, "metrics.jsonl"))
    return [line["step"] for line in lines if "restart" in line]


# ------------------------------------------------------------------------ runs


def straight():
    expect(hirl(*ARGS, "run%output='straight'"), 0)
    lines = metrics("straight/metrics.jsonl")
    steps = [line["step"] for line in lines if "loss" in line]
    check(
        steps == [*range(LOG_EVERY, N_STEPS, LOG_EVERY), N_STEPS],
        "straight: lines of steps %s" % steps,
    )
    check(not restarts("straight"), "straight: no restart")
    found = check_events("straight", "straight")
    tags = ("train/loss", "train/loss_moco", "train/lr", "train/grad_norm", "time/images_per_s")
    tags += ("time/data_share", "time/comm_share", "knn/top1_k20")
    check(all(tag in found for tag in tags), "straight: among them %s" % ", ".join(tags))
    check_clean("straight", "straight")


def stopped():
    """At steps within an interval, by max_steps and by a signal."""
    args = (*ARGS, "run%output='stopped'")
    for stop in (4, 9, 11):
        expect(hirl(*args, "run%%max_steps=%d" % stop), 0)
    last = metrics("stopped/metrics.jsonl")[-1]
    check(last["step"] == 11 and "open_steps" in last, "stopped: sums of the interval are kept")
    check(restarts("stopped") == [4, 9], "stopped: restarts at steps %s" % restarts("stopped"))
    steps = [step for step, _ in check_events("stopped at 11", "stopped")["train/loss"]]
    check(steps == [3, 6, 9, 11], "stopped at 11: scalars of steps %s" % steps)
    run = Started(*args)
    if run.wait_for_step("stopped/metrics.jsonl", 15):
        os.kill(run.rank_pids()[0], signal.SIGTERM)
    check(run.finish().code == 75, "stopped: by a signal")
    expect(hirl(*args), 0)
    check_same("stopped", "stopped")
    check(len(restarts("stopped")) == 4, "stopped: restarts at steps %s" % restarts("stopped"))


def killed():
    """At any moment; then what was being written is torn."""
    rng = random.Random(5)
    args = (*ARGS, "run%output='killed'")
    for goal in (3, 9):
        run = Started(*args)
        if run.wait_for_step("killed/metrics.jsonl", goal):
            os.kill(run.rank_pids()[rng.randrange(2)], signal.SIGKILL)
        check(run.finish().code not in (0, 75, None), "killed: after step %d" % goal)
    name = event_files("killed")[-1]
    with open("killed/metrics.jsonl", "ab") as file:
        file.write(b'{"step": 2, "loss": 1.5')
    with open("killed/" + name, "r+b") as file:
        file.truncate(os.path.getsize("killed/" + name) - 7)
    expect(hirl(*args), 0)
    check_same("killed", "killed")
    check(
        event_files("killed")[0] == name and len(event_files("killed")) == 2,
        "killed: a new name, for a TensorBoard that is watching, which finds the old one emptied",
    )


def odd():
    """Lines and files that others left do no harm, and a finished run changes nothing but the
    place of its evaluation."""
    shutil.copytree("killed", "odd")
    with open("odd/events.out.tfevents.1.other", "wb") as file:
        file.write(b"not of this program")
    os.rename("odd/" + event_files("odd")[-1], "odd/events.out.tfevents.9000000000.clock.1.hirl")
    with open("odd/metrics.jsonl", "ab") as file:
        file.write(b'\0\0\0\0\nno line\n{"step": 3, "list": [1]}\n{"step": 1e300, "loss": 1}\n')
        file.write(b'{"loss": 2}\n' + b"[" * 200000 + b'\n{"step": 21, "loss": 7}\n')
    expect(hirl(*ARGS, "run%output='odd'"), 0)
    names = event_files("odd")
    other = "events.out.tfevents.1.other"
    check(other in names and os.path.getsize("odd/" + other) == 19, "odd: files of others stay")
    os.remove("odd/" + other)
    check(
        len(names) == 3 and names[-1] > "events.out.tfevents.9000000000.clock",
        "odd: the new name sorts last although the clock was set back (%s)" % names[-1],
    )
    check_same("odd", "odd")
    check(restarts("odd") == restarts("killed"), "odd: evaluating again is no restart")


def tensorboard():
    """TensorBoard's own reader sees what ours sees."""
    python = os.environ.get("HIRL_TENSORBOARD_PYTHON") or sys.executable
    probe = [python, "-c", "import tensorboard; print(tensorboard.__version__)"]
    result = subprocess.run(probe, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    if result.returncode != 0:
        print("      TensorBoard's own reader is not available: left out")
        return
    for run in ("straight", "stopped", "killed"):
        result = subprocess.run(
            [python, "-c", TENSORBOARD, run], stdout=subprocess.PIPE, check=False
        )
        check(result.returncode == 0, "%s: TensorBoard reads it" % run)
        found = json.loads(result.stdout) if result.returncode == 0 else {}
        found = {tag: [tuple(point) for point in points] for tag, points in found.items()}
        check(
            found == scalars_of(read_events(run)),
            "%s: TensorBoard's own reader finds the same %d scalars" % (run, len(found)),
        )


prepare()
straight()
stopped()
killed()
odd()
tensorboard()
finish()
