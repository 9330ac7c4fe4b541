#!/usr/bin/env bash
# Run the tests under validation/ and count them. The makefile calls this: `make check`, `make bench`.
#
#   run.sh --build DIR --program HIRL_X [--sanitized DIR] [--emulated DIR] [--built no] [--search WORD]
#                                       run tests; the last line is the count
#   run.sh --bench --build DIR --program HIRL_X [--search WORD]             run validation/bench
#   run.sh --programs [--sanitized DIR | --emulated DIR | --device yes] [--search WORD]
#                                       print the C sources to build (for DIR; for a build with CUDA, too)
#   run.sh --list [--search WORD]                                           print the names of the tests
#
# A test is a C program or a script (.sh, .py) with one line of facts near its top:
#
#   // test: ranks=1,2,4 backends=ref,cpu args="a b" timeout=60
#   # test: timeout=300 needs=python3-torch
#
#   ranks=1        numbers of MPI ranks, each a test of its own (C programs; scripts start what they like)
#   backends=      backends, each a test of its own, given as the first argument; cuda is the emulated device of the build
#                  DIR (--emulated), or without one the machine's own, and without that a skipped test
#   args=          further arguments
#   timeout=60     seconds, then the test is killed and has failed
#   threads=       OMP_NUM_THREADS (default 2 on one rank, 1 on more)
#   needs=         commands or packages without which the test is skipped
#   expect=        text; the program must fail, and print this
#   env=           NAME=VALUE,... for the environment
#   sanitize=yes   unit tests on one rank run a second time with the sanitizers; "no" leaves that out, "only" the first
#   alone=         "no": may run beside another test; "yes": must not (default: one-rank programs may, scripts not);
#                  "waits": mostly waits, so that it starts first and runs beside those that may, without taking a core's place
#
# Exit 0 passes, 77 skips (the reason is the last line, or the last that begins with "skip:"), all else fails.
# Scripts run in the project's root and find there HIRL_X, HIRL_X_SANITIZED, HIRL_X_EMULATED, HIRL_BUILD, HIRL_MPIRUN, PYTHON
# and an empty folder HIRL_TMP that is removed afterwards (KEEP=1 keeps it).
set -u -o pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd) || exit 1
cd "$root" || exit 1

mode=run build='' program='' sanitized='' emulated='' device='' search='' built=yes
while [ $# -gt 0 ]; do
    case $1 in
        --programs | --list | --bench) mode=${1#--} ;;
        --build) build=$2 && shift ;;
        --program) program=$2 && shift ;;
        --sanitized) sanitized=$2 && shift ;;
        --emulated) emulated=$2 && shift ;;
        --device) device=$2 && shift ;;
        --built) built=$2 && shift ;;
        --search) search=$2 && shift ;;
        *) echo "run.sh: unknown option $1" >&2 && exit 2 ;;
    esac
    shift
done

# ------------------------------------------------------------------------------------------ what there is

# Set fact[...] from the line of facts of file $1; false if it has none. What is wrong with the line is kept in
# fact[error], which fails this test alone.
declare -A fact
read_facts() {
    local line rest key value
    fact=([ranks]=1 [backends]='' [args]='' [timeout]=60 [threads]='' [needs]='' [expect]='' [env]='' [sanitize]=yes
        [alone]='' [error]='')
    line=$(awk 'NR > 40 { exit } match($0, /^[ \t]*(\/\/+|#|\/?\*+)[ \t]*test:/) {
        print substr($0, RLENGTH + 1); exit }' "$1")
    if [ -z "$line" ]; then
        fact[error]='no line of facts (test: ...) near its top'
        return 1
    fi
    rest=${line%%\*/*}
    while [[ $rest =~ ^[[:space:]]*([a-z]+)=(\"([^\"]*)\"|([^[:space:]]*))(.*)$ ]]; do
        key=${BASH_REMATCH[1]} value=${BASH_REMATCH[3]}${BASH_REMATCH[4]} rest=${BASH_REMATCH[5]}
        [ -n "${fact[$key]+set}" ] && [ "$key" != error ] || fact[error]="unknown fact '$key'"
        fact[$key]=$value
    done
    [ -z "${rest//[[:space:]]/}" ] || fact[error]="cannot read '$rest' in its line of facts"
    if ! [[ ${fact[ranks]} =~ ^[0-9]+(,[0-9]+)*$ && ${fact[timeout]} =~ ^[0-9]+$ ]]; then
        fact[error]='ranks and timeout are numbers'
        fact[ranks]=1
    fi
    return 0
}

# True if the name $1 is wanted: `search` is looked for at the starts of its words.
is_wanted() {
    [ -z "$search" ] || [[ "/${1//[_ -]//}" == *"/${search//[_ -]//}"* ]]
}

# The parallel arrays of tests: name, file, ranks, backend, sanitized (yes or nothing).
names=() files=() rank_counts=() backends=() sanitizers=()
add_test() {
    is_wanted "$1" || return 0
    names+=("$1") files+=("$2") rank_counts+=("$3") backends+=("$4") sanitizers+=("$5")
}

# True if tests of this backend are wanted: all to run; for a list of programs the cuda ones or the others.
is_of_build() {
    case $mode,${emulated:+has},$1 in
        programs,has,cuda) true ;;
        programs,has,*) false ;;
        programs,,cuda) [ -n "$device" ] ;;
        *) true ;;
    esac
}

find_tests() {
    local file name n backend variant
    local -a program_files=() unit_files=()
    mapfile -t unit_files < <(printf '%s\n' validation/unit/t[0-9][0-9][0-9]_*.c | grep -v '\*')
    mapfile -t program_files < <(
        find validation -mindepth 2 -type f \( -name '*.c' -o -name '*.sh' -o -name '*.py' \) \
            -not -path 'validation/harness/*' -not -path 'validation/unit/*' -not -path 'validation/bench/*' |
            LC_ALL=C sort
    )
    for name in check/layers check/headers check/format check/harness; do
        [ "$mode" = programs ] || add_test $name '' 1 '' ''
    done
    for variant in '' yes; do
        case $mode,${sanitized:+has},$variant in
            *,,yes | programs,has,) continue ;;
        esac
        for file in ${unit_files[@]+"${unit_files[@]}"}; do
            read_facts "$file"
            name=${file#validation/} name=${name%.c}
            for n in ${fact[ranks]//,/ }; do
                case ${variant:-plain},$n,${fact[sanitize]} in
                    plain,*,only | yes,*,no) continue ;;
                    plain,* | yes,1,*) ;;
                    *) continue ;;
                esac
                for backend in ${fact[backends]//,/ } ''; do
                    [ -n "$backend" ] || [ -z "${fact[backends]}" ] || continue
                    [ "$backend,$variant" != cuda,yes ] && is_of_build "$backend" || continue
                    add_test "$name${backend:+ $backend}$([ "$n" -eq 1 ] || echo " x$n")${variant:+ sanitized}" \
                        "$file" "$n" "$backend" "$variant"
                done
            done
        done
    done
    [ "$mode,${sanitized:+has}" != programs,has ] || return 0
    for file in ${program_files[@]+"${program_files[@]}"}; do
        read_facts "$file" || continue
        name=${file#validation/} name=${name%.*}
        for n in ${fact[ranks]//,/ }; do
            for backend in ${fact[backends]//,/ } ''; do
                [ -n "$backend" ] || [ -z "${fact[backends]}" ] || continue
                is_of_build "$backend" || continue
                add_test "$name${backend:+ $backend}$([ "$n" -eq 1 ] || echo " x$n")" "$file" "$n" "$backend" ''
            done
        done
    done
}

# ------------------------------------------------------------------------------------------ how it runs

absolute() {
    case $1 in
        /* | '') printf '%s' "$1" ;;
        *) printf '%s' "$root/$1" ;;
    esac
}

set_environment() {
    cores=$(nproc)
    # Open MPI: run as root and on few cores too, do not attach to other processes' memory (containers forbid it),
    # and start a program without mpirun without a daemon beside it.
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none
    export OMPI_MCA_btl_vader_single_copy_mechanism=none OMPI_MCA_mpi_yield_when_idle=1
    export OMPI_MCA_ess_singleton_isolated=1
    export OMP_WAIT_POLICY=passive OMP_DYNAMIC=false
    # The plugins of Open MPI are gone when leaks are looked for: only whole stacks tell that they belonged to it.
    export ASAN_OPTIONS=detect_leaks=1:fast_unwind_on_malloc=0:detect_stack_use_after_return=1:exitcode=99
    export LSAN_OPTIONS=suppressions=$root/validation/harness/lsan.supp:print_suppressions=0
    export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
    export HIRL_BUILD HIRL_X HIRL_X_SANITIZED HIRL_X_EMULATED HIRL_MPIRUN PYTHON
    HIRL_BUILD=$(absolute "$build")
    HIRL_X=$(absolute "$program")
    HIRL_X_SANITIZED=$(absolute "${sanitized:+$sanitized/hirl.x}")
    HIRL_X_EMULATED=$(absolute "${emulated:+$emulated/hirl.x}")
    HIRL_MPIRUN="${MPIRUN:-mpirun} -q --oversubscribe --bind-to none"
    PYTHON=${PYTHON:-python3}
    logs=$build/log
    mkdir -p "$logs" || exit 1
    scratch=$(mktemp -d "${TMPDIR:-/tmp}/hirl-check.XXXXXX") || exit 1
    trap 'rm -rf "$scratch"' EXIT
    trap 'kill $(jobs -p) 2>/dev/null; wait; exit 130' INT TERM
}

is_present() {
    command -v "$1" >/dev/null ||
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# Run test number $1; leave its output in a log and "status seconds reason" in a result file.
run_one() {
    local i=$1 name=${names[$1]} file=${files[$1]} n=${rank_counts[$1]} backend=${backends[$1]}
    local log=$logs/${name//[\/ ]/-} folder=$build need text start status=0 reason='' threads
    local -a command settings=() arguments
    local tmp=$scratch/$i.tmp
    mkdir -p "$tmp"
    start=$EPOCHREALTIME
    case $name in
        check/harness)
            command=(bash validation/harness/self_test.sh) fact=([timeout]=120 [needs]='' [expect]='' [env]='' [threads]='' [error]='') ;;
        check/*)
            command=("${MAKE:-make}" --no-print-directory "check-${name#check/}")
            fact=([timeout]=120 [needs]='' [expect]='' [env]='' [threads]='' [error]='') ;;
        *)
            read_facts "$file"
            [ -z "${sanitizers[i]}" ] || folder=$sanitized
            if [ "$backend" = cuda ] && [ -n "$emulated" ]; then
                folder=$emulated
            elif [ "$backend" = cuda ]; then
                nvidia-smi -L >/dev/null 2>&1 || reason='no CUDA device'
            fi
            read -r -a arguments <<<"${fact[args]}"
            case $file in
                *.sh) command=(bash "$file") ;;
                *.py) command=("$PYTHON" "$file") ;;
                *) command=("$root/$folder/${file:11:-2}") && export HIRL_TEST_RANKS=$n ;;
            esac
            command+=(${backend:+"$backend"} ${arguments[@]+"${arguments[@]}"})
            # shellcheck disable=SC2206 # words, not one argument
            [ "$n" -eq 1 ] || command=($HIRL_MPIRUN -n "$n" "${command[@]}")
            ;;
    esac
    for need in ${fact[needs]//,/ }; do
        is_present "$need" || reason="$need is not installed"
    done
    if [ -n "${fact[error]}" ]; then
        status=1 reason=${fact[error]}
        echo "$file: $reason" >"$log"
    elif [ -n "$reason" ]; then
        status=77
        echo "skip: $reason" >"$log"
    elif [[ $file == *.c && ! -x $root/$folder/${file:11:-2} ]]; then
        status=1 reason='it did not build'
        echo "$folder/${file:11:-2} is missing: see above why it did not build" >"$log"
    else
        threads=${fact[threads]:-$([ "$n" -eq 1 ] && echo 2 || echo 1)}
        IFS=, read -r -a settings <<<"${fact[env]}"
        env HIRL_TMP="$tmp" OMP_NUM_THREADS="$threads" ${settings[@]+"${settings[@]}"} \
            timeout -k 10 "${fact[timeout]}" "${command[@]}" </dev/null >"$log" 2>&1
        status=$?
        case $status in
            124 | 137) reason="killed after ${fact[timeout]} s" ;;
            77)
                reason=$(grep -a '^skip:' "$log" | tail -n 1)
                [ -n "$reason" ] || reason=$(tail -n 1 "$log")
                reason=${reason#skip:} reason=${reason# }
                ;;
            *) reason="exit $status" ;;
        esac
        text=${fact[expect]}
        if [ -n "$text" ] && [ $status -ne 77 ]; then
            if [ $status -eq 0 ]; then
                status=1 reason='it should have failed'
            elif [ $status -ne 124 ] && [ $status -ne 137 ] && grep -aqF -- "$text" "$log"; then
                status=0
            else
                status=1 reason="it should have failed with '$text' ($reason)"
            fi
        fi
    fi
    [ -n "${KEEP:-}" ] || rm -rf "$tmp"
    printf '%s %s %s\n' "$status" "$(awk "BEGIN { printf \"%.1f\", $EPOCHREALTIME - $start }")" "$reason" \
        >"$scratch/$i.result.new"
    mv "$scratch/$i.result.new" "$scratch/$i.result"
}

n_passed=0 n_failed=0 n_skipped=0 failed=()
report() {
    local i=$1 status seconds reason
    read -r status seconds reason <"$scratch/$i.result" || { status=1 seconds=0 reason='the runner lost it'; }
    case $status in
        0) n_passed=$((n_passed + 1)) && printf 'pass %7s s  %s\n' "$seconds" "${names[i]}" ;;
        77) n_skipped=$((n_skipped + 1)) && printf 'skip %7s s  %s  (%s)\n' "$seconds" "${names[i]}" "$reason" ;;
        *)
            n_failed=$((n_failed + 1))
            failed+=("${names[i]} ($reason)")
            printf 'FAIL %7s s  %s  (%s)\n' "$seconds" "${names[i]}" "$reason"
            tail -n 40 "$logs/${names[i]//[\/ ]/-}" 2>/dev/null | sed 's/^/    | /'
            ;;
    esac
}

# Tests that may share the machine go first, as many at a time as there are cores (4 at most); those that mostly wait
# begin before them and are not counted.
run_all() {
    local i running=0 slots=$((cores < 4 ? cores : 4)) kind
    local -a beside=() later=() waiting=()
    local -A test_of=() counts_of=()
    start_one() { # test, what it takes of the slots
        run_one "$1" &
        test_of[$!]=$1 counts_of[$!]=$2
        running=$((running + $2))
    }
    end_one() {
        local ended
        wait -n -p ended
        report "${test_of[$ended]}"
        running=$((running - counts_of[$ended]))
        unset "test_of[$ended]"
    }
    for i in "${!names[@]}"; do
        kind=no
        [ -z "${files[i]}" ] || { read_facts "${files[i]}" && kind=${fact[alone]}; }
        if [ -z "$kind" ]; then
            if [[ ${files[i]} == *.c && ${rank_counts[i]} -eq 1 ]]; then kind=no; else kind=yes; fi
        fi
        case $kind in
            yes) later+=("$i") ;;
            waits) waiting+=("$i") ;;
            *) beside+=("$i") ;;
        esac
    done
    for i in ${waiting[@]+"${waiting[@]}"}; do start_one "$i" 0; done
    for i in ${beside[@]+"${beside[@]}"}; do
        while [ $running -ge "$slots" ]; do end_one; done
        start_one "$i" 1
    done
    while [ ${#test_of[@]} -gt 0 ]; do end_one; done
    for i in ${later[@]+"${later[@]}"}; do
        start_one "$i" 1
        end_one
    done
}

# Benchmarks print whatever they like; their `bench:` lines are passed on, all of it is kept in the log.
run_benchmarks() {
    local file name status=0 n=0
    for file in validation/bench/*.sh validation/bench/*.py; do
        name=${file##*/}
        [ -f "$file" ] && [[ $name != _* ]] && is_wanted "${name%.*}" || continue
        case $file in
            *.sh) set -- bash "$file" ;;
            *) set -- "$PYTHON" "$file" ;;
        esac
        n=$((n + 1))
        echo "$name"
        mkdir -p "$scratch/$name.tmp"
        HIRL_TMP=$scratch/$name.tmp "$@" </dev/null 2>&1 | tee "$logs/bench-$name" | grep --line-buffered '^bench:'
        case ${PIPESTATUS[0]} in
            0) ;;
            77) echo "skip: $(tail -n 1 "$logs/bench-$name")" ;;
            *) status=1 && echo "FAIL $name" && tail -n 20 "$logs/bench-$name" | sed 's/^/    | /' ;;
        esac
        rm -rf "$scratch/$name.tmp"
    done
    [ $n -gt 0 ] || { echo "no benchmark's name has a word that begins with '$search'" && status=1; }
    return $status
}

case $mode in
    programs)
        find_tests
        printf '%s\n' ${files[@]+"${files[@]}"} | grep '\.c$' | sort -u
        ;;
    list)
        find_tests
        printf '%s\n' ${names[@]+"${names[@]}"}
        ;;
    bench)
        set_environment
        run_benchmarks
        ;;
    run)
        set_environment
        find_tests
        if [ "$built" = no ]; then
            n_failed=1
            failed+=('check/build (something did not build, see above)')
            echo 'FAIL             check/build  (something did not build, see above)'
        fi
        run_all
        if [ $n_failed -gt 0 ]; then
            printf '\nfailed:\n'
            printf '  %s\n' "${failed[@]}"
            echo "(output: $logs)"
        fi
        if [ ${#names[@]} -eq 0 ]; then
            echo "no test's name has a word that begins with '$search'"
            n_failed=1
        fi
        echo "$n_passed passed, $n_failed failed, $n_skipped skipped"
        [ $n_failed -eq 0 ]
        ;;
esac
