# test: timeout=600 alone=waits needs=slurmctld,slurmd,srun,munged,python3-h5py,dataset-fashion-mnist
"""The program and the job scripts on a real SLURM of two nodes, as a user types the commands: in
a folder laid out like the project, with a small deck and a few hundred images.

    check_slurm.py [WORD]     all scenarios, or those whose name contains WORD

Runs are stopped in every way that SLURM has and must end with the bits of a run that was not.
The cluster lives in namespaces of its own (see cluster.py), so that it is gone with the process
that holds it; this is checked as well.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import cluster

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
DECK = "input/hirl_mocov2.nml"  # the default of the job scripts, here a small one
N_STEPS = 20
COUNTS = "counts %d %d %d"
AGAIN = "again "  # begins the lines that tell of failures once more
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED")

LONG = """! Purpose: a run that is still under way when it is stopped; the last line ends it.
&run base = 'hirl_mocov2.nml', output = 'long', max_steps = %d, timeout = 12 /
&schedule epochs = 1000 /
&checkpoint every_steps = 5, keep = 3 /
"""


class Unexpected(Exception):
    """What was seen is not what was expected."""


class Skipped(Exception):
    """Why a scenario cannot be had here."""


def want(is_fine, text):
    if not is_fine:
        raise Unexpected(text)


# ------------------------------------------------------------------------ inside the cluster


class Scenarios:
    """Work in the current folder. Each method that has two lines of text is a scenario: what is
    done and what is expected. It returns what was seen, or raises Unexpected or Skipped."""

    def __init__(self, cluster_, whole_run):
        self.c, self.w = cluster_, whole_run
        self.long = None  # the job that is stopped in one scenario after another
        with open("input/long.nml", "w") as file:
            file.write(LONG % 0)

    def need_long(self):
        if self.long is None or self.c.job(self.long).get("JobState") in ENDED:
            raise Skipped("the scenario before this one did not run or failed")

    # -------------------------------------------------------------------- helpers

    def command(self, *words, timeout=120):
        return self.w.run(list(words), timeout=timeout, env=self.c.env)

    def submit(self, *words):
        """sbatch; the job's number."""
        result = self.command("sbatch", *words)
        match = re.search(r"Submitted batch job (\d+)", result.text)
        want(match, "sbatch failed: %s" % result)
        return int(match.group(1))

    def output(self, job):
        path = "slurm-%s.out" % job
        if not os.path.exists(path):
            return ""
        with open(path, errors="replace") as file:
            return file.read()

    def wait_state(self, job, *states, timeout=120):
        """Waits for one of the states; the job as SLURM shows it."""
        end = time.monotonic() + timeout
        while True:
            found = self.c.job(job)
            if found.get("JobState") in states:
                return found
            if time.monotonic() > end or found.get("JobState") in ENDED:
                raise Unexpected(
                    "job is %s (%s, exit code %s) instead of %s\n%s"
                    % (
                        found.get("JobState"),
                        found.get("Reason"),
                        found.get("ExitCode"),
                        "/".join(states),
                        self.output(job)[-2000:],
                    )
                )
            time.sleep(0.1)

    def step_of(self, run):
        path = os.path.join(run, "metrics.jsonl")
        lines = self.w.metrics(path) if os.path.exists(path) else []
        return max([line["step"] for line in lines], default=0)

    def wait_steps(self, job, run, n=3, timeout=120):
        """Until a running job has done n steps more."""
        self.wait_state(job, "RUNNING", timeout=timeout)
        first, end = self.step_of(run), time.monotonic() + timeout
        while self.step_of(run) < first + n:
            state = self.c.job(job).get("JobState")
            want(
                state == "RUNNING" and time.monotonic() < end,
                "job is %s at step %d\n%s"
                % (state, self.step_of(run), self.output(job)[-2000:]),
            )
            time.sleep(0.05)

    def wait_requeued(self, job, n_restarts, timeout=150):
        """Until a job that was started waits for its next start. SLURM takes 12 to 25 s to give up a
        node that is gone, and longer on a busy machine."""
        end = time.monotonic() + timeout
        while self.c.job(job).get("Restarts") != str(n_restarts):
            state = self.c.job(job).get("JobState")
            want(
                time.monotonic() < end and state not in ENDED,
                "job is %s and not requeued\n%s" % (state, self.output(job)[-2000:]),
            )
            time.sleep(0.1)
        self.wait_state(job, "PENDING", timeout=timeout)

    @staticmethod
    def ranks():
        """Processes of the program on all nodes."""
        pids = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open("/proc/%s/stat" % pid) as file:
                    name, state = re.match(r"\d+ \((.*)\) (\S)", file.read()).groups()
            except OSError:
                continue
            if name == "hirl.x" and state != "Z":
                pids.append(int(pid))
        return sorted(pids)

    def want_no_ranks(self, timeout=60):
        try:
            self.c.wait("the ranks to end", lambda: not self.ranks(), timeout)
        except TimeoutError:
            raise Unexpected("ranks still run: %s" % self.ranks()) from None

    def want_same_bits(self, run_a, run_b, step):
        a, b = (
            self.w.read_checkpoint(self.w.checkpoint_path(run, step)) for run in (run_a, run_b)
        )
        names = self.w.differing(a, b)
        want(a and not names, "%s and %s differ at step %d: %s" % (run_a, run_b, step, names[:5]))
        return len(a)

    def want_steps_once(self, run, n):
        steps = [x["step"] for x in self.w.metrics(run + "/metrics.jsonl") if "loss" in x]
        want(steps == list(range(1, n + 1)), "metrics.jsonl of %s has steps %s" % (run, steps))

    @staticmethod
    def knn_of(text):
        return [
            tuple(map(float, found))
            for found in re.findall(r"knn: .*k = (\d+) top1 = ([\d.]+) top5 = ([\d.]+)", text)
        ]

    # -------------------------------------------------------------------- plain commands

    def srun(self):
        """srun hirl.x DECK
        exit code 0, a run on one rank, the rank table
        """
        result = self.command("srun", "hirl.x", DECK)
        want(result.code == 0, str(result))
        want("rank = 0, node = n1" in result.text, "no rank table\n%s" % result)
        self.want_steps_once("run", N_STEPS)
        return "exit code 0, %d steps, rank 0 on n1" % self.step_of("run")

    def srun_two_nodes(self):
        """srun -N 2 -n 2 hirl.x DECK
        a rank on each node, the bits of mpirun -n 2
        """
        result = self.command("srun", "-N", "2", "-n", "2", "hirl.x", DECK, "run%output='two'")
        want(result.code == 0, str(result))
        want(
            re.search(r"rank = 0, node = n1.*\n.*rank = 1, node = n2", result.text),
            "the rank table names other nodes\n%s" % result,
        )
        self.w.expect(self.w.hirl(DECK, "run%output='straight'", ranks=2), 0)
        n = self.want_same_bits("straight", "two", N_STEPS)
        return "ranks on n1 and n2, %d arrays have the same bits" % n

    def srun_wrong_deck(self):
        """srun hirl.x DECK with a misspelt key
        exit code 1, one message with place and remedy
        """
        with open("input/wrong.nml", "w") as file:
            file.write("&run base = 'hirl_mocov2.nml' /\n&optim batsh = 32 /\n")
        result = self.command("srun", "-N", "2", "-n", "2", "hirl.x", "input/wrong.nml")
        errors = self.w.error_lines(result.text)
        want(
            result.code == 1 and len(errors) == 1 and "wrong.nml:2:" in errors[0]
            and "batch" in errors[0],
            str(result),
        )
        return "exit code 1, 1 message, names wrong.nml:2 and 'batch'"

    def knn_eval(self):
        """sbatch slurm/knn_eval.sh
        COMPLETED, the accuracies that the training ended with
        """
        job = self.submit("slurm/knn_eval.sh")
        self.wait_state(job, "COMPLETED")
        with open("run/log.txt") as file:
            trained = self.knn_of(file.read())[-2:]
        found = self.knn_of(self.output(job))
        want(found and found == trained, "%s, training had %s" % (found, trained))
        return "COMPLETED, " + ", ".join("k = %d: %.2f %%" % x[:2] for x in found)

    def bound(self):
        """sbatch -N 2 --ntasks-per-node=2 slurm/train.sh
        4 ranks, each bound to a core of its own
        """
        job = self.submit(
            "--nodes=2", "--ntasks-per-node=2", "slurm/train.sh", DECK,
            "run%output='bound'", "run%max_steps=2",
        )
        self.wait_state(job, "COMPLETED")
        rows = re.findall(r"rank = (\d), node = (n\d), .* cpus = (.*)", self.output(job))
        expected = [
            (str(r), "n%d" % (1 + r // 2), "1 of %d" % (r % 2) if self.c.is_bound else None)
            for r in range(4)
        ]
        if not self.c.is_bound:
            rows = [(*row[:2], None) for row in rows]
        want(sorted(rows) == expected, "rank table %s\n%s" % (rows, self.output(job)))
        return "4 ranks, " + ("1 core each" if self.c.is_bound else "binding is not possible here")

    # -------------------------------------------------------------------- stopped and continued

    def sigterm(self):
        """scancel --signal=TERM, a job of train.sh on 2 nodes
        exit code 75, requeued, continues
        """
        self.long = job = self.submit("--nodes=2", "slurm/train.sh", "input/long.nml")
        self.wait_steps(job, "long")
        self.command("scancel", "--signal=TERM", str(job))
        self.wait_requeued(job, 1)
        return self.continues(job, "signal 15")

    def continues(self, job, reason=None):
        """After a requeue: the run went on from its newest checkpoint."""
        stopped_at = self.step_of("long")
        steps = self.w.steps_of("long")
        if reason:
            want(steps and steps[-1] == stopped_at, "checkpoints %s" % steps)
            want(
                re.search(reason, self.output(job).split("launch: job")[-1]),
                "no '%s'\n%s" % (reason, self.output(job)[-2000:]),
            )
        n_before = self.output(job).count("restart: from")
        self.c.release(job)
        self.wait_steps(job, "long")
        want(self.output(job).count("restart: from") == n_before + 1, self.output(job)[-2000:])
        return "stopped at step %d, requeued, continued from %d" % (stopped_at, steps[-1])

    def preempted(self):
        """a job of higher priority takes both nodes
        requeued by SLURM with a checkpoint, continues
        """
        self.need_long()
        result = self.command("srun", "-p", "urgent", "-N", "2", "--exclusive", "hostname")
        names = sorted(line for line in result.text.splitlines() if line in cluster.NODES)
        want(result.code == 0 and names == ["n1", "n2"], str(result))
        self.wait_requeued(self.long, 2)
        return self.continues(self.long, r"signal (10|15)")

    def node_fails(self):
        """one node is switched off
        requeued, continues from the last checkpoint
        """
        self.need_long()
        self.c.stop_node("n2")
        self.wait_requeued(self.long, 3)
        self.want_no_ranks()
        self.c.start_node("n2")
        self.c.wait("n2", lambda: self.c.node_states().get("n2") == "idle")
        return self.continues(self.long)

    def time_limit(self):
        """the time limit comes near
        SIGUSR1 by --signal, exit code 75, requeued
        """
        self.need_long()
        self.command("scontrol", "update", "JobId=%d" % self.long, "TimeLimit=1")
        self.wait_requeued(self.long, 4)
        self.command("scontrol", "update", "JobId=%d" % self.long, "TimeLimit=60")
        return self.continues(self.long, "signal 10")

    def short_limit(self):
        """a time limit shorter than --signal: SIGUSR1 during the start
        neither lost nor deadly: a step, then requeued
        """
        job = self.submit(
            "--nodes=2",
            "--time=1",
            "slurm/train.sh",
            "input/long.nml",
            "run%max_steps=0",
            "run%output='short'",
        )
        self.wait_requeued(job, 1)
        step = self.step_of("short")
        want(step >= 1 and self.w.steps_of("short")[-1] == step, "stopped at step %d" % step)
        self.command("scancel", str(job))
        self.wait_state(job, "CANCELLED")
        return "exit code 75 after step %d, requeued" % step

    def finishes(self):
        """the same job ends by itself
        COMPLETED, the bits of an undisturbed run, no step twice
        """
        self.need_long()
        self.command("scancel", "--signal=USR1", str(self.long))
        self.wait_requeued(self.long, 7)
        n = self.step_of("long") + 5
        with open("input/long.nml", "w") as file:
            file.write(LONG % n)
        self.c.release(self.long)
        self.wait_state(self.long, "COMPLETED")
        self.want_steps_once("long", n)
        self.w.expect(self.w.hirl("input/long.nml", "run%output='undisturbed'", ranks=2), 0)
        n_arrays = self.want_same_bits("undisturbed", "long", n)
        n_starts = self.output(self.long).count("launch: job")
        want(n_starts == 8, "%d starts in the job's output, expected 8" % n_starts)
        found = self.command("grep", "-r", "-l", str(self.long), "long")
        want(found.code == 1, "the run's folder holds the job's number: %s" % found.text)
        return "COMPLETED after 7 stops at step %d, %d arrays have the same bits" % (n, n_arrays)

    # -------------------------------------------------------------------- ended for good

    def cancelled(self):
        """scancel of a job of train.sh
        CANCELLED with a checkpoint, not requeued
        """
        job = self.submit(
            "--nodes=2", "slurm/train.sh", "input/long.nml", "run%max_steps=0",
            "run%output='cancelled'",
        )
        self.wait_steps(job, "cancelled")
        self.command("scancel", str(job))
        self.want_no_ranks()
        found = self.wait_state(job, "CANCELLED")
        want(found["Restarts"] == "0", "restarted %s times" % found["Restarts"])
        step = self.step_of("cancelled")
        want(self.w.steps_of("cancelled")[-1] == step, "no checkpoint of step %d" % step)
        return "CANCELLED, checkpoint of the last step %d" % step

    def expired(self):
        """the time limit expires, SIGUSR1 was switched off
        TIMEOUT with a checkpoint, not requeued; again: continues
        """
        options = ("--nodes=2", "--signal=B:CONT@1", "slurm/train.sh", "input/long.nml")
        options += ("run%output='expired'",)
        job = self.submit(*options, "run%max_steps=0")
        self.wait_steps(job, "expired")
        self.command("scontrol", "update", "JobId=%d" % job, "EndTime=now")
        found = self.wait_state(job, "TIMEOUT", timeout=120)
        self.want_no_ranks()
        want(found["Restarts"] == "0", "restarted %s times" % found["Restarts"])
        step = self.step_of("expired")
        want(self.w.steps_of("expired")[-1] == step, "no checkpoint of step %d" % step)
        job = self.submit(*options, "run%%max_steps=%d" % (step + 2))
        self.wait_state(job, "COMPLETED")
        self.want_steps_once("expired", step + 2)
        return "TIMEOUT, checkpoint of step %d; a new job continues" % step

    def rank_lost(self, number):
        """A rank of the long job gets a signal; the job is requeued and continues."""
        n_before = int(self.c.job(self.long)["Restarts"])
        # Losses without a newer checkpoint in between are counted together.
        newest = self.w.steps_of("long")[-1]
        self.c.wait("a newer checkpoint", lambda: self.w.steps_of("long")[-1] > newest)
        os.kill(self.ranks()[1], number)
        start = time.monotonic()
        self.wait_requeued(self.long, n_before + 1)
        seconds = time.monotonic() - start
        self.want_no_ranks()
        text = self.output(self.long).split("launch: job")[-1]
        want(re.search(r"watchdog: rank \d .*node n\d", text), "no word of the watchdog\n" + text)
        want("launch: lost a rank or a node (time 1 of 3), back into" in text, text)
        return "exit code 76 after %.0f s, %s" % (seconds, self.continues(self.long))

    def rank_killed(self):
        """SIGKILL to one rank of a job of train.sh
        exit code 76, requeued, continues
        """
        self.need_long()
        return self.rank_lost(signal.SIGKILL)

    def rank_stopped(self):
        """SIGSTOP to one rank of a job of train.sh
        exit code 76 within run%timeout, requeued, continues
        """
        self.need_long()
        return self.rank_lost(signal.SIGSTOP)

    def always_lost(self):
        """a program that loses a rank before each checkpoint
        requeued 3 times, then FAILED
        """
        self.c.env["HIRL_FAULT"] = "checkpoint_half:1"
        job = self.submit(
            "--nodes=2", "slurm/train.sh", "input/long.nml", "run%max_steps=0",
            "run%output='always_lost'",
        )
        del self.c.env["HIRL_FAULT"]
        for n in range(1, 4):
            self.wait_requeued(job, n)
            self.c.release(job)
        found = self.wait_state(job, "FAILED", timeout=60)
        want(found["Restarts"] == "3", "restarted %s times" % found["Restarts"])
        want(found["ExitCode"] == "76:0", "exit code %s" % found["ExitCode"])
        want("got no further: not requeued" in self.output(job), self.output(job)[-2000:])
        return "FAILED after 4 starts, exit code %s" % found["ExitCode"].split(":")[0]

    def rank_killed_by_hand(self):
        """SIGKILL to one rank under srun without options
        the program's watchdog ends it with 76
        """
        process = subprocess.Popen(
            [
                "srun",
                "-N",
                "2",
                "hirl.x",
                "input/long.nml",
                "run%output='by_hand'",
                "run%max_steps=0",
                "run%timeout=10",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self.c.env,
        )
        try:
            self.c.wait("steps", lambda: self.step_of("by_hand") >= 3)
            os.kill(self.ranks()[1], signal.SIGKILL)
            start = time.monotonic()
            code = process.wait(60)
        except subprocess.TimeoutExpired:
            raise Unexpected("srun still runs after 60 s") from None
        finally:
            process.kill()
            process.wait()
        want(code == 76, "srun ended with %d" % code)
        self.want_no_ranks()
        return "exit code %d after %.0f s" % (code, time.monotonic() - start)

    def daemon_killed(self):
        """SIGKILL to the slurmd of one node under srun -N 2
        srun ends, not with 0, no rank is left
        """
        process = subprocess.Popen(
            ["srun", "-N", "2", "-n", "2", "hirl.x", "input/long.nml", "run%output='daemon'",
             "run%max_steps=0"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=self.c.env,
        )
        try:
            self.c.wait("steps", lambda: self.step_of("daemon") >= 3)
            self.c.kill_daemon("n2")
            code = process.wait(60)
        except subprocess.TimeoutExpired:
            raise Unexpected("srun still runs after 60 s") from None
        finally:
            process.kill()
            process.wait()
            self.c.restart_daemon("n2")
        want(code != 0, "srun ended with 0")
        self.want_no_ranks()
        self.c.wait("n2", lambda: self.c.node_states().get("n2") == "idle")
        return "exit code %d; nothing left once the daemon is back" % code

    # -------------------------------------------------------------------- several jobs

    def pipeline(self):
        """slurm/pipeline.sh PACK DECK, training stopped once
        4 jobs COMPLETED in their order
        """
        result = self.command(
            "slurm/pipeline.sh", "--time=10", "input/pack.nml", "input/long.nml",
            "pack%output='piped'", "data%train='piped/train-*.h5'", "data%val='piped/val-*.h5'",
            "run%output='pipeline'", "run%max_steps=0", "schedule%epochs=20",
        )
        jobs = dict(re.findall(r"^(\S+): job (\d+)", result.text, re.M))
        want(
            result.code == 0 and list(jobs) == ["pack-train", "pack-val", "train", "knn"],
            str(result),
        )
        self.wait_steps(jobs["train"], "pipeline")
        self.command("scancel", "--signal=USR1", jobs["train"])
        self.wait_requeued(jobs["train"], 1)
        state = self.c.job(jobs["knn"])["JobState"]
        want(state == "PENDING", "knn is %s while training is requeued" % state)
        self.c.release(jobs["train"])
        for job in jobs.values():
            self.wait_state(job, "COMPLETED")
        starts = [self.c.job(job)["StartTime"] for job in jobs.values()]
        want(max(starts[:2]) <= starts[2] <= starts[3], "started at %s" % starts)
        found = self.knn_of(self.output(jobs["knn"]))
        with open("pipeline/log.txt") as file:
            trained = self.knn_of(file.read())[-2:]
        want(found and found == trained, "%s, training had %s" % (found, trained))
        return "4 COMPLETED in order, KNN as in training"

    def broken_pipeline(self):
        """slurm/pipeline.sh whose packing fails
        the jobs after it are removed
        """
        result = self.command(
            "slurm/pipeline.sh", "input/pack.nml", DECK, "pack%source='nowhere'",
            "pack%output='nothing'", "run%output='broken'",
        )
        jobs = dict(re.findall(r"^(\S+): job (\d+)", result.text, re.M))
        want(result.code == 0 and len(jobs) == 4, str(result))
        self.wait_state(jobs["pack-train"], "FAILED")
        for name in ("train", "knn"):
            self.wait_state(jobs[name], "CANCELLED", timeout=60)
        want(not os.path.exists("broken"), "the training has begun")
        return "pack FAILED, train and knn CANCELLED"

    def array(self):
        """sbatch --array=0-1 slurm/array.sh DECK
        two runs with seeds 0 and 1 in two folders
        """
        job = self.submit("--array=0-1", "slurm/array.sh", DECK, "run%output='array'")
        for i in (0, 1):
            self.wait_state("%d_%d" % (job, i), "COMPLETED")
            self.want_steps_once("array-seed%d" % i, N_STEPS)
        self.want_same_bits("run", "array-seed0", N_STEPS)
        a, b = (
            self.w.read_checkpoint(self.w.checkpoint_path("array-seed%d" % i, N_STEPS))
            for i in (0, 1)
        )
        n = len(self.w.differing(a, b))
        want(n > 50, "the seeds differ in %d arrays only" % n)
        return "2 COMPLETED; seed 0 as the run of srun, seed 1 another"


    def array_element(self):
        """scancel --signal=TERM of the last element of an array
        this element is requeued, the other is not
        """
        job = self.submit(
            "--array=0-1", "slurm/array.sh", "input/long.nml", "run%output='el'", "run%max_steps=0"
        )
        for i in (0, 1):
            self.wait_steps("%d_%d" % (job, i), "el-seed%d" % i)
        self.command("scancel", "--signal=TERM", "%d_1" % job)
        self.wait_requeued("%d_1" % job, 1)
        found = self.c.job("%d_0" % job)
        want(
            found["JobState"] == "RUNNING" and found["Restarts"] == "0",
            "the other is %s after %s restarts" % (found["JobState"], found["Restarts"]),
        )
        self.command("scancel", str(job))
        self.want_no_ranks()
        for i in (0, 1):
            self.wait_state("%d_%d" % (job, i), "CANCELLED")
        return "element 1 PENDING, element 0 RUNNING"

    def array_decks(self):
        """sbatch --array=0-1 slurm/array.sh of two methods' decks
        a run of each
        """
        with open("input/plain.nml", "w") as file:
            file.write("&run base = 'hirl_mocov2.nml', hierarchy = 'none', output = 'plain' /\n")
        job = self.submit(
            "--array=0-1", "slurm/array.sh", DECK, "input/plain.nml", "run%max_steps=2"
        )
        for i in (0, 1):
            self.wait_state("%d_%d" % (job, i), "COMPLETED")
        names = [
            set(self.w.read_checkpoint(self.w.checkpoint_path(run, 2)))
            for run in ("run-seed0", "plain-seed0")
        ]
        more = [name for name in names[0] - names[1] if "projection" in name]
        want(more and names[1] < names[0], "runs have %d and %d arrays" % tuple(map(len, names)))
        return "2 COMPLETED; only the first has a hierarchy"


ORDER = """
    srun srun_two_nodes srun_wrong_deck knn_eval bound sigterm preempted node_fails time_limit
    rank_killed rank_stopped finishes short_limit expired cancelled always_lost rank_killed_by_hand
    daemon_killed pipeline broken_pipeline array array_decks array_element
""".split()


# ------------------------------------------------------------------------ the table


class Table:
    """Scenarios and what became of them, a line each."""

    def __init__(self):
        self.counts = {"ok": 0, "FAIL": 0, "skip": 0}
        self.failed = []  # lines, to be told again where all that is read of a log is its end

    @staticmethod
    def line(*cells):
        print("%-4s | %-58s | %-62s | %-62s | %7s" % cells, flush=True)

    def run(self, scenario, expected, function):
        """False if it failed."""
        start = time.monotonic()
        try:
            mark, seen = "ok", function()
        except Skipped as reason:
            mark, seen = "skip", str(reason)
        except (Unexpected, OSError, LookupError, subprocess.SubprocessError) as error:
            mark, seen = "FAIL", "%s: %s" % (type(error).__name__, error)
        self.counts[mark] += 1
        first, _, rest = seen.partition("\n")
        if mark == "FAIL":
            self.failed.append("FAIL: %s: %s" % (scenario, seen[:1500]))
        self.line(mark, scenario, expected, first, "%.1f" % (time.monotonic() - start))
        for line in rest.splitlines():
            print("     | " + line, flush=True)
        return mark != "FAIL"


def described(function):
    """The two lines of a scenario's text: what is done, what is expected."""
    return [line.strip() for line in function.__doc__.strip().splitlines()]


def inside(base, word):
    """In the first process of the cluster's namespaces; the last line gives the counts."""
    work = os.path.join(base, "work")
    os.environ["HIRL_TMP"] = work
    sys.path.insert(0, os.path.join(ROOT, "validation", "invariance"))
    import whole_run

    table, held = Table(), []

    def start():
        held.append(cluster.Cluster(base))
        return "n1 and n2 are idle"

    if table.run("a cluster is started", "two idle nodes", start):
        whole_run.prepare(work)
        os.makedirs("input")
        os.rename("deck.nml", DECK)
        os.rename("pack.nml", "input/pack.nml")
        shutil.copy(whole_run.HIRL, "hirl.x")
        shutil.copytree(os.path.join(ROOT, "slurm"), "slurm")
        scenarios = Scenarios(held[0], whole_run)
        for name in ORDER:
            function = getattr(scenarios, name)
            if word in name and not table.run(*described(function), function):
                held[0].tidy()
    if table.counts["FAIL"]:
        print(cluster.logs(base))
    for line in "\n".join(table.failed).splitlines():
        print(AGAIN + line)
    print(COUNTS % tuple(table.counts.values()), flush=True)


def hold(base):
    """A cluster with a job that would run on, until this process is ended from outside."""
    held = cluster.Cluster(base)
    held.text("sbatch", "--output=/dev/null", "-N", "2", "--wrap", "srun sleep 1000")
    held.wait("a running job", lambda: "RUNNING" in held.text("squeue", "-h", "-o", "%T"))
    print("held " + base, flush=True)
    signal.pause()


# ------------------------------------------------------------------------ outside


class Outside:
    """A process of this script in namespaces of its own, with a folder for it."""

    def __init__(self, *arguments):
        self.base = tempfile.mkdtemp(prefix="hirl-slurm.", dir="/tmp")
        self.process = cluster.enter(
            [sys.executable, os.path.abspath(__file__), arguments[0], self.base, *arguments[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )

    def lines(self):
        for line in self.process.stdout:
            yield line.decode(errors="replace")

    def end(self):
        """The kernel ends what is in there; what it has left is checked."""
        self.process.kill()
        self.process.wait()
        found = wait_for_nothing(self.base)
        if os.environ.get("KEEP"):
            print("kept: " + self.base)
        else:
            shutil.rmtree(self.base, ignore_errors=True)
        want(not found, "; ".join(found))
        return "no process, no mount"


def wait_for_nothing(base, timeout=20):
    """Until no process and no mount has to do with the cluster of that folder; what is left."""
    end = time.monotonic() + timeout
    while True:
        found = cluster.left_over(base)
        if not found or time.monotonic() > end:
            return found
        time.sleep(0.1)


def killed_by(number):
    """Ends a test that holds a cluster by a signal, as Ctrl-C or the test runner would."""
    process = subprocess.Popen(
        [sys.executable, os.path.abspath(__file__), "--hold"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        base = process.stdout.readline().decode().split()[-1]
        n_before = len(cluster.left_over(base))
        want(n_before > 8, "only %d processes belong to the cluster" % n_before)
        process.send_signal(number)
        process.wait(30)
        found = wait_for_nothing(base)
    finally:
        process.kill()
        process.wait()
    want(not found, "; ".join(found))
    want(number == signal.SIGKILL or not os.path.exists(base), "%s is left" % base)
    shutil.rmtree(base, ignore_errors=True)
    return "%d processes before, then none, no mount" % n_before


def on_signal(number, frame):
    raise SystemExit(128 + number)


def main(arguments):
    reason = cluster.why_not()
    if reason:
        print("skip: " + reason)
        return 77
    signal.signal(signal.SIGTERM, on_signal)
    if arguments[:1] == ["--hold"]:
        outside = Outside("--hold-inside")
        try:
            for line in outside.lines():
                print(line, end="", flush=True)
        finally:
            outside.end()
        return 0
    word = arguments[0] if arguments else ""
    table, counts, again = Table(), None, []
    table.line("", "scenario", "expected", "seen", "seconds")
    outside = Outside("--inside", word)
    try:
        for line in outside.lines():
            if line.startswith("counts "):
                counts = [int(n) for n in line.split()[1:]]
            elif line.startswith(AGAIN):
                again.append(line[len(AGAIN) :].rstrip("\n"))
            else:
                print(line, end="", flush=True)
    except BaseException:
        outside.end()
        raise
    table.run("the cluster is taken down", "no process, no mount is left", outside.end)
    for number, text in (
        (signal.SIGINT, "Ctrl-C in the middle of it"),
        (signal.SIGTERM, "SIGTERM in the middle of it"),
        (signal.SIGKILL, "SIGKILL in the middle of it"),
    ):
        if word in "taken_down":
            expected = "the cluster is taken down, no process, no mount"
            table.run(text, expected, lambda number=number: killed_by(number))
    for i, mark in enumerate(table.counts):
        table.counts[mark] += counts[i] if counts else mark == "FAIL"
    for line in again + table.failed:
        print(line)
    print("%d passed, %d failed, %d skipped" % tuple(table.counts.values()))
    return 1 if table.counts["FAIL"] else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        inside(*sys.argv[2:4])
    elif sys.argv[1:2] == ["--hold-inside"]:
        hold(sys.argv[2])
    else:
        sys.exit(main(sys.argv[1:]))
