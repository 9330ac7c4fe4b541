# test: timeout=600 needs=slurmctld,slurmd,srun,munged,python3-h5py,dataset-fashion-mnist
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
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED")

LONG = """! Purpose: a run that is still under way when it is stopped; the last line ends it.
&run base = 'hirl_mocov2.nml', output = 'long', max_steps = %d /
&schedule epochs = 1000 /
&checkpoint every_steps = 5, keep = 3 /
"""


class Unexpected(Exception):
    """What was seen is not what was expected."""


def want(is_fine, text):
    if not is_fine:
        raise Unexpected(text)


# ------------------------------------------------------------------------ inside the cluster


class Scenarios:
    """Work in the current folder; each method returns what was seen or raises Unexpected."""

    def __init__(self, cluster_, whole_run):
        self.c, self.w = cluster_, whole_run

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

    def wait_requeued(self, job, n_restarts, timeout=60):
        found = self.wait_state(job, "PENDING", timeout=timeout)
        want(found["Restarts"] == str(n_restarts), "Restarts = %s" % found["Restarts"])

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

    def want_no_ranks(self, timeout=30):
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
        """srun hirl.x DECK|exit code 0, a run on one rank, the rank table"""
        result = self.command("srun", "hirl.x", DECK)
        want(result.code == 0, str(result))
        want("rank = 0, node = n1" in result.text, "no rank table\n%s" % result)
        self.want_steps_once("run", N_STEPS)
        return "exit code 0, %d steps, rank 0 on n1" % self.step_of("run")

    def srun_two_nodes(self):
        """srun -N 2 -n 2 hirl.x DECK|a rank on each node, the bits of mpirun -n 2"""
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
        """srun hirl.x DECK with a misspelt key|exit code 1, one message with place and remedy"""
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
        """sbatch slurm/knn_eval.sh|COMPLETED, the accuracies that the training ended with"""
        job = self.submit("slurm/knn_eval.sh")
        self.wait_state(job, "COMPLETED")
        with open("run/log.txt") as file:
            trained = self.knn_of(file.read())[-2:]
        found = self.knn_of(self.output(job))
        want(found and found == trained, "%s, training had %s" % (found, trained))
        return "COMPLETED, " + ", ".join("k = %d: %.2f %%" % x[:2] for x in found)

    def bound(self):
        """sbatch -N 2 --ntasks-per-node=2 slurm/train.sh|4 ranks, each bound to a core of its own"""
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
        """scancel --signal=TERM, a job of train.sh on 2 nodes|exit code 75, requeued, continues"""
        with open("input/long.nml", "w") as file:
            file.write(LONG % 0)
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
        """a job of higher priority takes both nodes|requeued by SLURM with a checkpoint, continues"""
        result = self.command("srun", "-p", "urgent", "-N", "2", "--exclusive", "hostname")
        names = sorted(line for line in result.text.splitlines() if line in cluster.NODES)
        want(result.code == 0 and names == ["n1", "n2"], str(result))
        self.wait_requeued(self.long, 2)
        return self.continues(self.long, r"signal (10|15)")

    def node_fails(self):
        """one node is switched off|requeued by SLURM, continues from the last checkpoint"""
        self.c.stop_node("n2")
        self.wait_requeued(self.long, 3)
        self.want_no_ranks()
        self.c.start_node("n2")
        self.c.wait("n2", lambda: self.c.node_states().get("n2") == "idle")
        return self.continues(self.long)

    def time_limit(self):
        """the time limit comes near|SIGUSR1 by --signal, exit code 75, requeued"""
        self.command("scontrol", "update", "JobId=%d" % self.long, "TimeLimit=1")
        self.wait_requeued(self.long, 4)
        self.command("scontrol", "update", "JobId=%d" % self.long, "TimeLimit=60")
        return self.continues(self.long, "signal 10")

    def finishes(self):
        """the same job ends by itself|COMPLETED, the bits of an undisturbed run, no step twice"""
        self.command("scancel", "--signal=USR1", str(self.long))
        self.wait_requeued(self.long, 5)
        n = self.step_of("long") + 5
        with open("input/long.nml", "w") as file:
            file.write(LONG % n)
        self.c.release(self.long)
        self.wait_state(self.long, "COMPLETED")
        self.want_steps_once("long", n)
        self.w.expect(self.w.hirl("input/long.nml", "run%output='undisturbed'", ranks=2), 0)
        n_arrays = self.want_same_bits("undisturbed", "long", n)
        n_starts = self.output(self.long).count("launch: job")
        want(n_starts == 6, "%d starts in the job's output, expected 6" % n_starts)
        found = self.command("grep", "-r", "-l", str(self.long), "long")
        want(found.code == 1, "the run's folder holds the job's number: %s" % found.text)
        return "COMPLETED after 5 stops at step %d, %d arrays have the same bits" % (n, n_arrays)

    # -------------------------------------------------------------------- ended for good

    def cancelled(self):
        """scancel of a job of train.sh|CANCELLED with a checkpoint, not requeued"""
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

    def rank_killed(self):
        """SIGKILL to one rank of a job of train.sh|FAILED, not requeued, no rank is left"""
        self.c.env["HIRL_SRUN"] = "--wait=5"
        job = self.submit(
            "--nodes=2", "slurm/train.sh", "input/long.nml", "run%max_steps=0",
            "run%output='killed'",
        )
        del self.c.env["HIRL_SRUN"]
        self.wait_steps(job, "killed")
        os.kill(self.ranks()[1], signal.SIGKILL)
        found = self.wait_state(job, "FAILED", timeout=60)
        self.want_no_ranks()
        want(found["Restarts"] == "0", "restarted %s times" % found["Restarts"])
        return "FAILED, exit code %s" % found["ExitCode"].split(":")[0]

    def daemon_killed(self):
        """SIGKILL to the slurmd of one node under srun -N 2|srun ends, not with 0, no rank is left"""
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
        """slurm/pipeline.sh PACK DECK, training stopped once|4 jobs COMPLETED in their order"""
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
        """slurm/pipeline.sh whose packing fails|the jobs after it are removed"""
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
        """sbatch --array=0-1 slurm/array.sh DECK|two runs with seeds 0 and 1 in two folders"""
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


ORDER = (
    "srun", "srun_two_nodes", "srun_wrong_deck", "knn_eval", "bound",
    "sigterm", "preempted", "node_fails", "time_limit", "finishes",
    "cancelled", "rank_killed", "daemon_killed", "pipeline", "broken_pipeline", "array",
)  # fmt: skip


# ------------------------------------------------------------------------ the table


class Table:
    def __init__(self):
        self.n_passed = self.n_failed = 0
        self.line("", "scenario", "expected", "seen", "seconds")

    @staticmethod
    def line(mark, scenario, expected, seen, seconds):
        print("%-4s | %-56s | %-62s | %-70s | %7s" % (mark, scenario, expected, seen, seconds))
        sys.stdout.flush()

    def run(self, scenario, expected, function):
        start = time.monotonic()
        try:
            seen, is_fine = function(), True
        except (Unexpected, TimeoutError, OSError, KeyError, subprocess.SubprocessError) as error:
            seen, is_fine = "%s: %s" % (type(error).__name__, error), False
        self.n_passed += is_fine
        self.n_failed += not is_fine
        first, _, rest = seen.partition("\n")
        seconds = "%.1f" % (time.monotonic() - start)
        self.line("ok" if is_fine else "FAIL", scenario, expected, first, seconds)
        if rest:
            print("\n".join("     | " + line for line in rest.splitlines()))
        return is_fine


def inside(base, word):
    """The first process of the cluster's namespaces."""
    work = os.path.join(base, "work")
    os.environ["HIRL_TMP"] = work
    sys.path.insert(0, os.path.join(ROOT, "validation", "invariance"))
    import whole_run

    table = Table()
    up = []
    ok = table.run(
        "the cluster starts", "two idle nodes",
        lambda: up.append(cluster.Cluster(base)) or "%s" % up[0].node_states(),
    )  # fmt: skip
    if ok:
        try:
            whole_run.prepare(work)
            os.makedirs("input")
            os.rename("deck.nml", DECK)
            os.rename("pack.nml", "input/pack.nml")
            shutil.copy(whole_run.HIRL, "hirl.x")
            shutil.copytree(os.path.join(ROOT, "slurm"), "slurm")
            scenarios = Scenarios(up[0], whole_run)
            for name in ORDER:
                function = getattr(scenarios, name)
                if word in name and not table.run(*function.__doc__.split("|"), function):
                    up[0].tidy()
        finally:
            if table.n_failed:
                print(up[0].logs())
            up[0].stop()
    print("counts %d %d" % (table.n_passed, table.n_failed), flush=True)


def main():
    reason = cluster.why_not()
    if reason:
        print("skip: " + reason)
        sys.exit(77)
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    base = tempfile.mkdtemp(prefix="hirl-slurm.", dir="/tmp")
    process = cluster.enter(
        [sys.executable, os.path.abspath(__file__), "--inside", base, word],
        stdout=subprocess.PIPE,
    )
    counts = None
    for line in process.stdout:
        text = line.decode(errors="replace")
        match = re.match(r"counts (\d+) (\d+)$", text)
        if match:
            counts = [int(n) for n in match.groups()]
        else:
            sys.stdout.write(text)
            sys.stdout.flush()
    process.wait()
    shutil.rmtree(base, ignore_errors=True)
    n_passed, n_failed = counts or (0, 1)
    print("%d passed, %d failed, 0 skipped" % (n_passed, n_failed))
    sys.exit(1 if n_failed else 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        inside(*sys.argv[2:4])
    else:
        main()
