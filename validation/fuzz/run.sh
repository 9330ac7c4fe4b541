#!/usr/bin/env bash
# Run fuzzers one after another; `make fuzz` calls this. What they find and learn stays in FOLDER/<target>.
#
#   run.sh FOLDER "deck shard ckpt image pack" SECONDS
#
# Exit 1 if one found a crash, a hang (20 s), an allocation of more than 2 GB, or a leak of counted
# memory. Leaks inside HDF5 are not looked for: it forgets headers that it cannot decode.
set -u -o pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
folder=$1 targets=$2 seconds=$3

export OMPI_MCA_ess_singleton_isolated=1 OMPI_MCA_btl_vader_single_copy_mechanism=none
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=1
export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:handle_abort=1:quarantine_size_mb=16
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
failed=0
for target in $targets; do
    program=$folder/fuzz_$target work=$folder/$target
    [ -x "$program" ] || { echo "fuzz: there is no target '$target', want deck, shard, ckpt, image or pack" && exit 1; }
    mkdir -p "$work/corpus" "$work/seeds" "$work/found"
    more=()
    [ "$target" != deck ] || more=(input -dict=validation/fuzz/deck.dict)
    HIRL_FUZZ_SEEDS=$work/seeds "$program" \
        "$work/corpus" "validation/fuzz/corpus/$target" "$work/seeds" ${more[@]+"${more[@]}"} \
        -max_total_time="$seconds" -max_len=8192 -timeout=20 -rss_limit_mb=3000 \
        -malloc_limit_mb=2000 -detect_leaks=0 -print_final_stats=1 -artifact_prefix="$work/found/" \
        >"$work/log" 2>&1 || failed=1
    grep -a -E 'SUMMARY|ERROR|^stat::|^Done|DONE|last failure|written to' "$work/log" | sed "s/^/$target: /"
done
exit $failed
