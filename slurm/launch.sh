# Read by the job scripts of this folder: runs hirl.x as one step over all nodes of the job.
#
#   launch DECK [group%key=value ...]
#       ends with the program's exit code; one that was interrupted (75), or that has lost a rank or
#       a node (76), is put back into the queue, the latter at most $max_lost times in a row that
#       bring no newer checkpoint: a program or node that is broken for good ends the job
#
# Ranks: as many as the job asked for (--ntasks, --ntasks-per-node), else one per GPU of the job or
# one per CPU socket, each with its share of the cores and bound to them.
# HIRL_X: the program, if it is neither in the current folder nor on PATH.
# HIRL_SRUN: further options of srun; they come last and win.
# shellcheck shell=bash

step='' repeater='' is_stopped=no is_woken=no max_lost=3

# SLURM sends SIGUSR1 to this shell alone, so the ranks must get it from here; SIGTERM has reached
# them already, unless somebody sent it to this shell alone. One that comes while the step starts is
# lost, so it is repeated: the program acts on the first that it sees and does not mind the others.
pass_signal() {
    is_stopped=yes is_woken=yes
    [ -n "$step" ] && [ -z "$repeater" ] || return 0
    while sleep 1 && kill -USR1 "$step" 2>/dev/null; do sleep 4; done &
    repeater=$!
}

layout() {
    local n_ranks=${SLURM_NTASKS_PER_NODE:-} n_cpus=${SLURM_CPUS_ON_NODE:-1} n_nodes
    n_nodes=${SLURM_JOB_NUM_NODES:-1}
    if [ -z "$n_ranks" ] && [ -n "${SLURM_NTASKS:-}" ]; then
        options=(--ntasks="$SLURM_NTASKS" --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}")
        return
    fi
    if [ -z "$n_ranks" ]; then
        n_ranks=${SLURM_GPUS_ON_NODE:-$(lscpu --parse=socket | grep -v '^#' | sort -u | wc -l)}
        [ "$n_ranks" -gt 0 ] || n_ranks=1
        [ "$n_ranks" -le "$n_cpus" ] || n_ranks=$n_cpus
    fi
    n_cpus=${SLURM_CPUS_PER_TASK:-$((n_cpus > n_ranks ? n_cpus / n_ranks : 1))}
    options=(--ntasks=$((n_nodes * n_ranks)) --ntasks-per-node="$n_ranks" --cpus-per-task="$n_cpus")
}

# False if a node of the job is gone: it can't run anything.
all_nodes_answer() {
    [ "${SLURM_JOB_NUM_NODES:-1}" -eq 1 ] || timeout 60 srun --mpi=none --overlap \
        --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --cpus-per-task=1 true >/dev/null 2>&1
}

# How often in a row ranks or nodes were lost and the run got no further, this time included; as the
# job's output tells, to which all starts are appended. Where that is no file, all restarts count.
count_lost() {
    local output
    output=$(readlink "/proc/$$/fd/1")
    if [ -f "$output" ]; then
        awk '/^launch: lost/ { n++ }
            /^restart: from / { if ($0 != from) n = 0; from = $0 }
            END { print n + 1 }' "$output"
    else
        echo $((${SLURM_RESTART_COUNT:-0} + 1))
    fi
}

# requeue JOB REASON
requeue() {
    local state
    state=$(scontrol show job "$1" | sed -n 's/^ *JobState=\([A-Z_]*\).*/\1/p')
    # A job that is being cancelled would be revived; one that is preempted has its place.
    if [ "${state:-RUNNING}" = RUNNING ]; then
        echo "launch: $2, back into the queue"
        scontrol requeue "$1"
    else
        echo "launch: $2; SLURM ends the job ($state)"
    fi
}

launch() {
    local code=0 extra n_lost options job=$SLURM_JOB_ID program=${HIRL_X:-hirl.x}
    # The plain number of an array's last element means the whole array.
    [ -z "${SLURM_ARRAY_JOB_ID:-}" ] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
    trap pass_signal USR1 TERM
    layout
    read -r -a extra <<<"${HIRL_SRUN:-}"
    # --wait: when one rank is gone the others are ended a minute later. --kill-on-bad-exit would
    # end them at once, also those that are about to leave with 75, and 75 would be lost.
    options=(--mpi=pmix --wait=60 --cpu-bind=cores "${options[@]}" ${extra[@]+"${extra[@]}"})
    echo "launch: job $job start $((${SLURM_RESTART_COUNT:-0} + 1)):" \
        "srun ${options[*]} $program $*"
    # As srun finds it by itself.
    [[ $program == */* || ! -x $program ]] || program=./$program
    # Until srun and the program are ready for the signal they ignore it: it would end them.
    # shellcheck disable=SC2016 # for the inner shell
    (
        trap '' USR1
        exec srun "${options[@]}" bash -c 'trap "" USR1 && exec "$0" "$@"' "$program" "$@"
    ) &
    step=$!
    [ $is_stopped = no ] || pass_signal
    while wait "$step" || code=$?; [ $is_woken = yes ]; do
        is_woken=no code=0 # a signal ends the waiting, not the step
    done
    [ -z "$repeater" ] || kill "$repeater" 2>/dev/null
    # When all ranks are killed the code of the loss may not come through. The ranks know of a lost
    # node minutes before SLURM does, which then would requeue the job.
    if [[ $code != @(0|75|76) ]] && ! all_nodes_answer; then
        echo "launch: the step ended with $code, and a node of the job does not answer"
        code=76
    fi
    if [ "$code" -eq 75 ]; then
        requeue "$job" interrupted
    elif [ "$code" -eq 76 ]; then
        n_lost=$(count_lost)
        if [ "$n_lost" -le "$max_lost" ]; then
            requeue "$job" "lost a rank or a node (time $n_lost of $max_lost)"
        else
            echo "launch: lost a rank or a node $n_lost times in a row and got no further:" \
                "not requeued. sbatch the same line to try again"
        fi
    fi
    exit "$code"
}
