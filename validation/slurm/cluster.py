"""A real two-node SLURM cluster on one machine, for the tests of this folder.

The whole cluster lives in Linux namespaces of its own: processes, network, mounts and host name.
Its ports are therefore always free, its state is always fresh, and the kernel ends every process
and mount of it when the process that holds it ends, in whichever way. Each node has namespaces
inside these, so that it has its own name, /tmp and /dev/shm, sees no other node's processes, and
can be switched off at once. Needs root, and Debian's packages of SLURM and munge.
"""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import time

NODES = ("n1", "n2")
PROGRAMS = ("slurmctld", "slurmd", "srun", "sbatch", "scontrol", "munged", "ip")
FIRST_JOB = 7654001  # so long that it is found nowhere by chance
KILL_WAIT = 5  # seconds from SIGTERM to SIGKILL
ADDRESS = "10.0.0.1"  # of all; their ports differ
os.environ["PATH"] += ":/usr/sbin:/sbin"  # where the daemons are, of which PATH may know nothing
UNSHARE = ("--mount", "--pid", "--fork", "--kill-child", "--mount-proc")

# A new network has a loopback interface alone. SLURM, Open MPI and the program's watchdog want one
# that other machines could reach; which kinds there are depends on the kernel.
NETWORK = """\
for kind in dummy bridge veth; do
    ip link add net0 type $kind 2>/dev/null && break
done
ip link show net0 >/dev/null 2>&1 || ip tuntap add dev net0 mode tap
set -e
ip link set lo up
ip address add %s/24 dev net0
ip link set net0 up
""" % ADDRESS

CONFIG = """\
ClusterName=hirl
SlurmctldHost=head
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={base}/munge/socket
StateSaveLocation={base}/state
SlurmdSpoolDir=/tmp/slurmd
SlurmctldPidFile={base}/slurmctld.pid
SlurmdPidFile={base}/slurmd-%n.pid
SlurmctldLogFile={base}/slurmctld.log
SlurmdLogFile={base}/%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin={task_plugin}
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=pmix
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MailProg=/bin/true
FirstJobId={first_job}
MinJobAge=3600
ReturnToService=2
SlurmdTimeout=6
MessageTimeout=5
KillWait={kill_wait}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
NodeName=n1 Port=6821 {shape} State=UNKNOWN
NodeName=n2 Port=6822 {shape} State=UNKNOWN
PartitionName=batch Nodes=n1,n2 Default=YES PriorityTier=1 MaxTime=INFINITE
PartitionName=urgent Nodes=n1,n2 PriorityTier=9 PreemptMode=OFF MaxTime=INFINITE
"""

PROBE = "set -e; mount -t tmpfs none /dev/shm; set +e\n"

# A node: its own /tmp, which still shows the cluster's folder, and /dev/shm. Bash stays as the
# first process of the node and takes in the processes that lost their parents.
NODE = """\
set -eu
hostname "$1"
mount --make-rprivate /
mount -t tmpfs none "$2/$1"
mkdir "$2/$1/${2##*/}"
chmod 1777 "$2/$1"
mount --bind "$2" "$2/$1/${2##*/}"
mount --rbind "$2/$1" /tmp
mount -t tmpfs none /dev/shm
slurmd -D -N "$1" -f "$2/slurm.conf" </dev/null >/dev/null 2>&1 &
while sleep 3600; do :; done
"""


def why_not():
    """The reason why there can be no cluster here, or None."""
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    if missing:
        packages = "slurmctld slurmd slurm-client munge iproute2"
        return "%s not found (packages %s)" % (", ".join(missing), packages)
    if os.geteuid() != 0:
        return "needs root: the nodes are namespaces of the kernel"
    probe = subprocess.run(
        ["unshare", "--uts", "--net", *UNSHARE, "bash", "-c", PROBE + NETWORK],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    if probe.returncode != 0:
        return "this system gives no namespaces: " + probe.stderr.decode().strip()
    return None


def die_with_parent():
    """In a child between fork and exec: it is killed when this process ends, however it does."""
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def enter(command, **options):
    """Starts a command as first process of new namespaces."""
    return subprocess.Popen(
        ["unshare", "--uts", "--net", *UNSHARE, *command], preexec_fn=die_with_parent, **options
    )


def clean_environment(base):
    """What a user's shell on the cluster has: nothing of an outer job or of the test runner's MPI
    settings, but those which only say that the machine is small and may be a container."""
    env = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("SLURM_", "SBATCH_", "SRUN_", "OMPI_", "PMIX_", "PMI_", "HIRL_"))
    }
    env.update(
        SLURM_CONF=os.path.join(base, "slurm.conf"),
        OMPI_MCA_btl_vader_single_copy_mechanism="none",
        OMPI_MCA_mpi_yield_when_idle="1",
        OMP_WAIT_POLICY="passive",
        OMP_NUM_THREADS="1",
    )
    return env


class Cluster:
    """To be made by the first process of namespaces of its own, see `enter`.

    base: an empty folder right below /tmp (paths of sockets are short).
    """

    def __init__(self, base):
        self.base = base
        self.env = clean_environment(base)
        self.daemons = {}
        # All of the machine's CPUs are in each node; with fewer in our set their numbers differ.
        n_cpus = os.cpu_count()
        self.n_cpus = max(2, n_cpus)
        self.is_bound = n_cpus >= 2 and len(os.sched_getaffinity(0)) == n_cpus
        socket.sethostname("head")
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        subprocess.run(["bash", "-c", NETWORK], check=True)
        with open(self.path("hosts"), "w") as file:
            file.write("127.0.0.1 localhost\n%s head %s\n" % (ADDRESS, " ".join(NODES)))
        subprocess.run(["mount", "--bind", self.path("hosts"), "/etc/hosts"], check=True)
        os.chmod(base, 0o755)  # munged asks for it
        os.makedirs(self.path("state"))
        os.mkdir(self.path("munge"), 0o755)
        for node in NODES:
            os.mkdir(self.path(node))
        with open(self.path("munge", "key"), "wb", opener=self.private) as file:
            file.write(os.urandom(128))
        with open(self.path("slurm.conf"), "w") as file:
            file.write(
                CONFIG.format(
                    base=base,
                    first_job=FIRST_JOB,
                    kill_wait=KILL_WAIT,
                    task_plugin="task/affinity" if self.is_bound else "task/none",
                    shape="CPUs=%d Sockets=1 CoresPerSocket=%d ThreadsPerCore=1"
                    % (self.n_cpus, self.n_cpus),
                )
            )
        self.start_daemon(
            "munged",
            "--foreground",
            "--key-file=" + self.path("munge", "key"),
            "--socket=" + self.path("munge", "socket"),
            "--pid-file=" + self.path("munge", "pid"),
            "--seed-file=" + self.path("munge", "seed"),
            "--log-file=" + self.path("munge", "log"),
        )
        self.wait("munged's socket", lambda: os.path.exists(self.path("munge", "socket")))
        self.start_daemon("slurmctld", "-D", "-c", "-f", self.path("slurm.conf"))
        for node in NODES:
            self.start_node(node)
        self.wait("two idle nodes", lambda: self.node_states() == {node: "idle" for node in NODES})

    @staticmethod
    def private(path, flags):
        return os.open(path, flags, 0o600)

    def path(self, *names):
        return os.path.join(self.base, *names)

    def start_daemon(self, *command):
        log = open(self.path(command[0] + ".out"), "ab")
        self.daemons[command[0]] = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env, cwd="/"
        )
        log.close()

    # -------------------------------------------------------------------- nodes

    def start_node(self, node):
        """Switches a node on."""
        log = open(self.path(node + ".out"), "ab")
        self.daemons[node] = subprocess.Popen(
            ["unshare", "--uts", *UNSHARE, "bash", "-c", NODE, "node", node, self.base],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=self.env,
            cwd="/",
        )
        log.close()

    def stop_node(self, node):
        """Switches a node off: all its processes are gone at once, and nobody is told."""
        process = self.daemons.pop(node)
        os.kill(process.pid, signal.SIGKILL)  # its child, the node's first process, goes with it
        process.wait()

    def kill_daemon(self, node):
        """Kills slurmd alone; what it had started goes on."""
        with open(self.path("slurmd-%s.pid" % node)) as file:
            pid = int(file.read())
        self.on_node(node, "kill", "-KILL", str(pid))

    def restart_daemon(self, node):
        self.on_node(node, "slurmd", "-N", node, "-f", self.path("slurm.conf"))

    def on_node(self, node, *command):
        """Runs a command inside a node; its text."""
        first = self.children(self.daemons[node].pid)[0]
        return self.text("nsenter", "-t", str(first), "-m", "-u", "-p", *command)

    @staticmethod
    def children(pid):
        with open("/proc/%d/task/%d/children" % (pid, pid)) as file:
            return [int(child) for child in file.read().split()]

    def node_states(self):
        """Names and states; an asterisk: does not respond."""
        lines = self.text("sinfo", "-h", "-N", "-p", "batch", "-o", "%N %t").split("\n")
        return dict(line.split() for line in lines if line)

    # -------------------------------------------------------------------- commands

    def text(self, *command):
        """Standard output of a command that nobody but this test gives; '' if it failed."""
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self.env,
            timeout=60,
            check=False,
        ).stdout.decode(errors="replace")

    def wait(self, what, is_true, timeout=120):
        end = time.monotonic() + timeout
        while not is_true():
            if time.monotonic() > end:
                raise TimeoutError("waited %d s for %s" % (timeout, what))
            time.sleep(0.1)

    def job(self, job):
        """What SLURM knows of a job; {} if nothing."""
        words = self.text("scontrol", "-o", "show", "job", str(job)).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def release(self, job):
        """Starts a requeued job soon, not after two minutes. SLURM waits for a reason: a daemon that
        has not seen the old start end kills what has the job's number when KillWait is over, and
        that would be the new one."""
        time.sleep(KILL_WAIT + 1)
        self.text("scontrol", "update", "JobId=%s" % job, "StartTime=now")

    def tidy(self):
        """After a scenario that went wrong: no jobs, all nodes."""
        self.text("scancel", "--user=root")
        for node in NODES:
            if node not in self.daemons:
                self.start_node(node)
        self.wait("idle nodes", lambda: set(self.node_states().values()) == {"idle"})


def logs(base, n_lines=30):
    """The ends of the daemons' logs, and of what nodes that did not start have said."""
    text = []
    for name in ["slurmctld.log"] + [node + end for node in NODES for end in (".log", ".out")]:
        path = os.path.join(base, name)
        if os.path.exists(path) and os.path.getsize(path) > 0:
            with open(path, errors="replace") as file:
                lines = file.read().splitlines()[-n_lines:]
            text.append("--- %s\n%s" % (name, "\n".join(lines)))
    return "\n".join(text)


def left_over(base):
    """Processes and mounts of this machine that have to do with a cluster's folder."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) == os.getpid():
            continue
        for name in ("cmdline", "environ", "mountinfo"):
            try:
                with open("/proc/%s/%s" % (pid, name), "rb") as file:
                    text = file.read()
            except OSError:
                continue
            if base.encode() in text:
                found.append("process %s (%s)" % (pid, name))
                break
    with open("/proc/self/mountinfo") as file:
        found += ["mount " + line.split()[4] for line in file if base in line]
    return found
