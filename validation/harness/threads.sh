#!/bin/bash
# Runs test programs that were built with ThreadSanitizer; a report fails them. What Open MPI, PMIx and HDF5 do among themselves, uninstrumented, is left out.
#   threads.sh PROGRAM...
set -u
export TSAN_OPTIONS="ignore_noninstrumented_modules=1 exitcode=66 second_deadlock_stack=1"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_btl_vader_single_copy_mechanism=none
# OpenMP's runtime is not instrumented either: its threads would seem to race.
export OMP_NUM_THREADS=1 OMP_THREAD_LIMIT=1
HIRL_TMP=$(mktemp -d)
export HIRL_TMP
trap 'rm -rf "$HIRL_TMP"' EXIT
passed=0 failed=0
for program; do
    source=validation/unit/$(basename "$program").c
    ranks=$(sed -n 's|^// test:.*ranks=\([0-9,]*\).*|\1|p' "$source")
    for n in $(tr , " " <<<"${ranks:-1}"); do
        log=$HIRL_TMP/log
        ${MPIRUN:-mpirun} -q --oversubscribe --bind-to none -n "$n" "$program" >"$log" 2>&1
        code=$?
        if [ $code -eq 0 ] && ! grep -q 'WARNING: ThreadSanitizer' "$log"; then
            passed=$((passed + 1))
            echo "pass  $(basename "$program") on $n ranks"
        else
            failed=$((failed + 1))
            echo "FAIL  $(basename "$program") on $n ranks, exit code $code"
            sed 's/^/      /' "$log" | head -80
        fi
    done
done
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
