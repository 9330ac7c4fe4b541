#!/usr/bin/env bash
# Build, test and measure hirl.x on the GPU of this machine: validation/gpu.sh [OPTIONS] [STAGE...]
#
#   build       find CUDA, cuDNN and NCCL; unpack build/bundle.tar.xz where packages are missing;
#               make CUDA=1 with the tests of the device
#   tests       the table of operations and every other test that takes the device
#   sanitizer   compute-sanitizer over the table of operations
#   train       small runs: device against CPU, restart, then KNN on Fashion-MNIST if it is here
#   bench       training step against PyTorch, clustering against FAISS, where a step's time goes
#
# No stage named: all, in this order. What each finds is printed at once and added to a table:
#   --output FILE     the table (default validation/reference/gpu/<card>.md)
#   --seconds N       begin nothing after N seconds, stop what runs then
#   --tools "..."     of compute-sanitizer: memcheck (default) racecheck initcheck synccheck
#   --batch N         of the benchmarked step (default 256)
#   --jobs N          of make (default: all processors)
#   --emulated        try the stages on the emulated device of make CUDA=emulated: no sanitizer, and
#                     no times, which would be the processor's
# CUDA_HOME, CUDNN_HOME and NCCL_HOME name places; otherwise they are looked for, in Python's
# wheels too. Exit code: 0 all passed, 1 something failed, 77 no GPU.
set -u -o pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

say() { printf '%s\n' "$*"; }
die() {
    printf 'gpu.sh: %s\n' "$*" >&2
    exit 1
}

stages=() output='' seconds=0 tools=memcheck batch=256 jobs=$(nproc) emulated=''
while [ $# -gt 0 ]; do
    case $1 in
        build | tests | sanitizer | train | bench) stages+=("$1") ;;
        --emulated) emulated=yes ;;
        --output | --seconds | --tools | --batch | --jobs)
            [ $# -ge 2 ] || die "$1 wants a value"
            printf -v "${1#--}" %s "$2"
            shift
            ;;
        --help | -h) sed -n '2,/^set /s/^# \{0,1\}//p' validation/gpu.sh && exit 0 ;;
        *) die "unknown: $1 (--help)" ;;
    esac
    shift
done
[ ${#stages[@]} -gt 0 ] || stages=(build tests sanitizer train bench)
for number in "$seconds" "$batch" "$jobs"; do
    [[ $number =~ ^[0-9]+$ ]] || die "'$number' is not a number"
done

export PATH=$PATH:/usr/local/nvidia/bin:/usr/local/cuda/bin
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_btl_vader_single_copy_mechanism=none
export OMPI_MCA_ess_singleton_isolated=1
python=${PYTHON:-$(command -v python3)}
end=$((SECONDS + seconds))
has_failed=''

# ---------------------------------------------------------------------------------- the table

if [ -n "$emulated" ]; then
    card='emulated device' driver=none
    build=build/release-emulated program=build/release-emulated/hirl.x
else
    facts=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader \
        2>/dev/null | head -n 1)
    if [ -z "$facts" ]; then
        say "no GPU here: nvidia-smi is missing or lists none (--emulated tries the stages without)"
        exit 77
    fi
    IFS=, read -r card driver memory <<<"$facts"
    driver=${driver# } card="$card,$memory"
    build=build/release-cuda program=./hirl.x
fi
if [ -z "$output" ]; then
    name=$(tr -cs 'A-Za-z0-9\n' '-' <<<"${card%%,*}" | tr '[:upper:]' '[:lower:]')
    output=validation/reference/gpu/${name%-}.md
    [ -z "$emulated" ] || output=build/gpu-emulated.md
fi
mkdir -p "$(dirname "$output")" || exit 1
scratch=$(mktemp -d "${TMPDIR:-/tmp}/hirl-gpu.XXXXXX") || exit 1
trap 'rm -rf "$scratch"' EXIT

begin_table() {
    local commit line
    commit=$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
    {
        [ -s "$output" ] || printf '# %s: what validation/gpu.sh found\n' "$card"
        printf '\n## %s, commit %s\n\n' "$(date -u '+%Y-%m-%d %H:%M UTC')" "$commit"
        printf -- '- card: %s\n- driver: %s\n' "$card" "$driver"
        for line in "$@"; do printf -- '- %s\n' "$line"; done
        printf '\n| stage | what | result | seconds |\n|---|---|---|---|\n'
    } | tee -a "$output"
}

# A line of the table: row STAGE WHAT RESULT [SECONDS].
row() {
    local text
    # Times of an emulated device are nobody's.
    [ -z "$emulated" ] || set -- "$1" "$2" "$3"
    printf -v text '| %s | %s | %s | %s |' "$1" "$2" "${3//|//}" "${4:-}"
    say "$text"
    say "$text" >>"$output"
    [[ $3 != failed* ]] || has_failed=yes
}

# Run a command within a time, its output in $log; 125: no time is left. limited SECONDS COMMAND...
limited() {
    local limit=$1
    shift
    limit=$(time_left "$limit")
    [ "$limit" -ge 5 ] || return 125
    timeout -k 5 "$limit" "$@" </dev/null >"$log" 2>&1
}

# The seconds that a command with the limit $1 has.
time_left() {
    local limit=$1
    if [ "$seconds" -gt 0 ] && [ $((end - SECONDS)) -lt "$limit" ]; then
        limit=$((end - SECONDS))
    fi
    echo "$limit"
}

# What the exit code $1 of `limited` means; for a failure, the end of the log is printed.
outcome() {
    case $1 in
        0) echo passed ;;
        77) echo "skipped: $(grep -a '^skip:' "$log" | tail -n 1 | cut -c7-)" ;;
        125) echo 'skipped: no time left' ;;
        124 | 137) echo 'failed: stopped when its time was up' ;;
        *)
            tail -n 30 "$log" | sed 's/^/    /' >&2
            echo "failed: exit code $1, $(grep -av '^ *$' "$log" | tail -n 1 | cut -c1-160)"
            ;;
    esac
}

# Run and tell: step STAGE WHAT SECONDS COMMAND...; the code is the command's.
step() {
    local stage=$1 what=$2 limit=$3 start=$SECONDS code
    shift 3
    log=$scratch/$stage.log
    limited "$limit" "$@"
    code=$?
    row "$stage" "$what" "$(outcome $code)" $((SECONDS - start))
    return $code
}

# Lines "row: WHAT = RESULT" of a log, each a line of the table.
rows_of_log() {
    local line
    while IFS= read -r line; do
        line=${line#row: }
        row "$1" "${line%% = *}" "${line#* = }"
    done < <(grep -a '^row: ' "$log")
}

# ---------------------------------------------------------------------------------- libraries

# Folders of NVIDIA's wheels, one a line.
wheels() {
    [ -n "$python" ] || return 0
    "$python" -c '
import importlib.util
spec = importlib.util.find_spec("nvidia")
for path in spec.submodule_search_locations if spec else ():
    print(path)' 2>/dev/null
}

has_library() {
    local dir
    for dir in lib64 lib targets/x86_64-linux/lib lib/x86_64-linux-gnu; do
        compgen -G "$1/$dir/lib$2.so*" >/dev/null && return 0
    done
    return 1
}

# The first folder that has header and library: find_home HEADER LIBRARY FOLDER...
find_home() {
    local header=$1 library=$2 dir
    shift 2
    for dir in "$@"; do
        if [ -e "${dir:-/none}/include/$header" ] && has_library "$dir" "$library"; then
            printf '%s' "$dir"
            return
        fi
    done
    return 1
}

# Toolkits without cuBLAS exist beside wheels that have it: one folder of links to both.
merge_cuda() {
    local merged=$PWD/build/cuda dir file
    rm -rf "$merged" && mkdir -p "$merged/include" "$merged/lib64" || return 1
    for dir in "$CUDA_HOME" "$@"; do
        for file in "$dir"/include/*; do
            [ ! -e "$file" ] || [ -e "$merged/include/${file##*/}" ] ||
                ln -s "$file" "$merged/include/"
        done
        for file in "$dir"/{lib64,targets/x86_64-linux/lib,lib}/lib*.so*; do
            [ ! -e "$file" ] || [ -e "$merged/lib64/${file##*/}" ] ||
                ln -s "$file" "$merged/lib64/"
        done
    done
    CUDA_HOME=$merged
}

find_cuda() {
    local roots=() root nvcc parts=()
    mapfile -t roots < <(wheels)
    nvcc=${NVCC:-${CUDA_HOME:+$CUDA_HOME/bin/nvcc}}
    nvcc=${nvcc:-$(command -v nvcc)}
    if [ -z "$nvcc" ] || ! [ -x "$nvcc" ]; then
        say "no CUDA compiler: nvcc is neither on PATH nor in /usr/local/cuda; set CUDA_HOME"
        return 1
    fi
    NVCC=$nvcc
    : "${CUDA_HOME:=$(dirname "$(dirname "$(readlink -f "$nvcc")")")}"
    for root in ${roots[@]+"${roots[@]}"}; do
        parts+=("$root"/cu1[0-9] "$root/cublas" "$root/cuda_runtime")
    done
    if ! find_home cublasLt.h cublasLt "$CUDA_HOME" >/dev/null ||
        ! find_home cuda_runtime.h cudart "$CUDA_HOME" >/dev/null; then
        merge_cuda ${parts[@]+"${parts[@]}"}
        find_home cublasLt.h cublasLt "$CUDA_HOME" >/dev/null ||
            { say "no cuBLAS: neither the toolkit of $nvcc nor a wheel has it" && return 1; }
    fi
    CUDNN_HOME=$(find_home cudnn.h cudnn "${CUDNN_HOME:-}" "$CUDA_HOME" \
        ${roots[@]+"${roots[@]/%//cudnn}"} /usr/local /usr) ||
        { say "no cuDNN (cudnn.h and libcudnn.so): set CUDNN_HOME" && return 1; }
    NCCL_HOME=$(find_home nccl.h nccl "${NCCL_HOME:-}" "$CUDA_HOME" \
        ${roots[@]+"${roots[@]/%//nccl}"} /usr/local /usr) ||
        { say "no NCCL (nccl.h and libnccl.so): set NCCL_HOME" && return 1; }
    settings=("CUDA_HOME=$CUDA_HOME" "CUDNN_HOME=$CUDNN_HOME" "NCCL_HOME=$NCCL_HOME" "NVCC=$NVCC")
    # Code for this card alone takes a third of the time.
    root=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1)
    root=${root//./}
    [[ ! $root =~ ^[0-9]+$ ]] || settings+=("CUDA_ARCH=$root" "CUDA_PTX=$root")
}

number_of() { sed -n "s/^# *define *$2 *//p" "$1" 2>/dev/null | head -n 1; }

describe_cuda() {
    local dnn=$CUDNN_HOME/include/cudnn_version.h nccl=$NCCL_HOME/include/nccl.h
    say "CUDA: $("$NVCC" --version | sed -n 's/.*release //p'), $CUDA_HOME"
    say "cuDNN: $(number_of "$dnn" CUDNN_MAJOR).$(number_of "$dnn" CUDNN_MINOR).$(number_of \
        "$dnn" CUDNN_PATCHLEVEL), $CUDNN_HOME"
    say "NCCL: $(number_of "$nccl" NCCL_MAJOR).$(number_of "$nccl" NCCL_MINOR).$(number_of \
        "$nccl" NCCL_PATCH), $NCCL_HOME"
}

# ---------------------------------------------------------------------------------- stages

# Without packages and without settings, the bundle has what is needed.
unpack() {
    if [ -e config.mk ]; then
        say 'config.mk is used as it is'
    elif pkg-config --exists hdf5-openmpi libturbojpeg hwloc 2>/dev/null && command -v mpicc; then
        say 'packages are installed'
    else
        bash validation/gpu/bundle.sh unpack build/bundle.tar.xz
    fi
}

do_build() {
    local log=$scratch/unpack.log code
    unpack >"$log" 2>&1
    code=$?
    row build libraries "$(outcome $code): $(tail -n 1 "$log")"
    [ $code -eq 0 ] || return
    step build "make ${make[*]:2}" 900 "${make[@]}" all || return
    step build tests 600 "${make[@]}" tests search=cuda
    step build benchmarks 300 "${make[@]}" benches
    if "$program" --version >"$scratch/version" 2>&1; then
        row build 'hirl.x --version' "$(grep -aE '^(compiler|cuda|cublas|cudnn|nccl) ' \
            "$scratch/version" | paste -sd ';' | sed 's/;/; /g')"
    else
        log=$scratch/version
        row build 'hirl.x --version' "$(outcome 1)"
        ldd "$program" | grep 'not found' >&2
    fi
}

need_program() {
    local variant
    variant=$(cat build/hirl.x-variant 2>/dev/null)
    if [ -x "$program" ] && [ "${emulated:-$variant}" != release ]; then
        return 0
    fi
    row "$1" 'a build' 'failed: no program of this variant; begin with the stage build'
    return 1
}

need_python() {
    [ -z "$python" ] || return 0
    row "$1" "$2" 'skipped: no python3 on PATH'
    return 1
}

do_tests() {
    local line result took name from=(--build "$build")
    need_program tests || return
    [ -z "$emulated" ] || from=(--build build/release --emulated "$build")
    log=$scratch/tests.log
    limited 540 env MPIRUN="$mpirun" PYTHON="$python" validation/harness/run.sh "${from[@]}" \
        --program "$program" --search cuda
    line=$?
    while read -r result took _ name; do
        case $result in
            pass) row tests "$name" passed "$took" ;;
            skip) row tests "${name%%  (*}" "skipped: ${name#*  }" ;;
            FAIL) row tests "${name%%  (*}" "failed: ${name#*  }" "$took" ;;
        esac
    done < <(grep -aE '^(pass|skip|FAIL) ' "$log")
    [ $line -eq 0 ] || grep -a '^    |' "$log" >&2
    case $line in
        0) ;;
        1) grep -aq ' failed, ' "$log" || row tests 'all of them' "$(outcome 1)" ;;
        *) row tests 'those after these' "$(outcome $line)" ;;
    esac
    need_python tests 'training step against PyTorch in f64' || return
    step tests 'training step against PyTorch in f64' 240 env HIRL_TMP="$scratch" \
        HIRL_X="$program" "$python" validation/gpu/train.py probe
    rows_of_log tests
}

do_sanitizer() {
    local tool
    if [ -n "$emulated" ]; then
        row sanitizer "$tools" 'skipped: an emulated device has nothing for compute-sanitizer'
        return
    fi
    need_program sanitizer || return
    if ! command -v compute-sanitizer >/dev/null; then
        row sanitizer "$tools" 'skipped: compute-sanitizer is not on PATH'
        return
    fi
    for tool in $tools; do
        step sanitizer "$tool, table of operations" 540 env OMP_NUM_THREADS=4 \
            compute-sanitizer --tool "$tool" --error-exitcode 9 --print-limit 20 \
            "$build/ops/run_ops" cuda validation/ops/ops_table.txt
    done
}

do_train() {
    local what
    need_program train && need_python train 'small runs' || return
    for what in curve restart knn; do
        if [ "$what,$emulated" = knn,yes ]; then
            row train knn 'skipped: hours on an emulated device'
            continue
        fi
        mkdir -p "$scratch/$what"
        step train "$what" 420 env HIRL_TMP="$scratch/$what" HIRL_X="$program" MPIRUN="$mpirun" \
            "$python" validation/gpu/train.py "$what"
        rows_of_log train
    done
}

do_bench() {
    local file line args=()
    need_program bench && need_python bench 'all of it' || return
    # On an emulated device the programs are tried at small sizes, and their times are kept back.
    [ -z "$emulated" ] || args=(--emulated)
    step bench 'training step' 540 env HIRL_BUILD="$build" "$python" \
        validation/bench/gpu_step.py --batch "$batch" --seconds "$(($(time_left 540) - 15))" \
        ${args[@]+"${args[@]}"}
    rows_of_log bench
    step bench 'where its time goes' 300 env HIRL_BUILD="$build" "$python" \
        validation/gpu/step_kernels.py --batch "$batch" ${args[@]+"${args[@]}"}
    rows_of_log bench
    for file in validation/bench/gpu_kmeans*.py validation/bench/gpu_views.py; do
        [ -e "$file" ] || continue
        step bench "${file##*/}" 300 env HIRL_BUILD="$build" HIRL_X="$program" "$python" "$file" \
            ${args[@]+"${args[@]}"}
        while IFS= read -r line; do
            row bench "${file##*/}" "${line#bench: }"
        done < <(grep -a '^bench: ' "$log")
    done
}

# ---------------------------------------------------------------------------------- all of it

settings=() found=()
if [ -z "$emulated" ]; then
    find_cuda || exit 1
    mapfile -t found < <(describe_cuda)
    make=(make "JOBS=$jobs" CUDA=1 "${settings[@]}")
else
    found=('nothing here says anything about a GPU')
    make=(make "JOBS=$jobs" CUDA=emulated)
fi
mpirun=${MPIRUN:-mpirun}
[ ! -x build/bundle/bin/mpirun ] || mpirun=$PWD/build/bundle/bin/mpirun
begin_table "${found[@]}"
for stage in "${stages[@]}"; do
    "do_$stage"
done
say "table: $output"
[ -z "$has_failed" ]
