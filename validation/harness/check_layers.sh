#!/usr/bin/env bash
# The program is built in layers, and includes point only backwards in:
#
#   base | deck par tensor h5 | backend | tape | nn optim data ckpt | cluster | ssl | eval | train | app
#
# Modules of one layer do not include one another, but for the pairs in `within` below. A module's own folder may
# use its `*_impl.h`; nobody else may. Each third-party library has its places, and only src/app ends the process.
#
#   check_layers.sh ROOT          check the tree; a line per finding, non-zero if there is one
#   check_layers.sh --self-test   check that each rule finds what breaks it
set -u

layers='base | deck par tensor h5 | backend | tape | nn optim data ckpt | cluster | ssl | eval | train | app'

# "a>b: reason": module a may include module b of the same layer.
within='
optim>nn: optimisers and gradient buckets work on the registry of parameters, which nn owns
'

# library: pattern of its headers = folders and files that may include it
libraries='
oneDNN: ^(dnnl|oneapi/) = src/backend/cpu/
MPI: ^mpi\.h = src/par/ include/hirl/par.h
HDF5: ^(hdf5|H5[A-Za-z]*|hdf5_hl)\.h = src/data/ src/ckpt/
CUDA: ^(cuda|cublas|cudnn|nccl|curand|cusolver|nvml|cub/|thrust/|cooperative_groups) = src/backend/cuda/ src/par/ kernels/
FAISS: ^faiss/ = src/cluster/
'

# function: folders and files that may call it. HIRL_ASSERT ends a debug build where it stands. HDF5's library
# believes the files that it opens, so it only writes; src/h5 reads.
endings='
exit: src/app/
_exit: src/app/
_Exit: src/app/
quick_exit: src/app/
abort: src/app/ src/base/
MPI_Abort: src/app/ src/par/
H5Fopen: validation/
H5Fis_hdf5: validation/
'

check_tree() {
    (
        cd "$1" || exit 2
        find include src kernels -type f \( -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' \) 2>/dev/null | sort |
            LC_ALL=C awk -v layers="$layers" -v within="$within" -v libraries="$libraries" -v endings="$endings" '
        function report(text) { printf "%s:%d: %s\n", file, FNR_, text; n_found++ }

        # True if the path begins with one of the places.
        function is_within(path, places,   n, p, i) {
            n = split(places, p, " ")
            for (i = 1; i <= n; i++) if (index(path, p[i]) == 1) return 1
            return 0
        }

        # The module that owns a file: its folder under src, or the first word of a public header.
        function module_of(path,   m) {
            m = path
            if (sub(/^include\/hirl\//, "", m)) { sub(/[_.].*/, "", m); return m }
            if (sub(/^src\//, "", m)) { sub(/\/.*/, "", m); return m }
            return path ~ /^kernels\// ? "kernels" : ""
        }

        function check_include(name, is_quoted,   to, i, base) {
            for (i = 1; i <= n_libraries; i++)
                if (name ~ pattern[i] && !is_within(file, places[i]))
                    report("includes " name ", but " library[i] " is only for " places[i])
            if (name ~ /(^|\/)\.\.\//) { report("includes " name " by a path upwards"); return }
            if (name ~ /^hirl\//) {
                to = module_of("include/" name)
                if (!(to in level)) report("includes " name ", which belongs to no layer")
                else if (from == "kernels") report("includes " name ", but kernels know nothing of the program")
                else if (level[to] > level[from])
                    report("includes " name ": " from " lies below " to)
                else if (level[to] == level[from] && to != from && !((from ">" to) in is_allowed))
                    report("includes " name ": " from " and " to " are of one layer")
            } else if (is_quoted) {
                base = file
                sub(/[^\/]*$/, "", base)
                if (name ~ /^kernels\/[a-z0-9_]+\.h$/) {
                    if (!is_within(file, "src/backend/cuda/"))
                        report("includes " name ", but kernels are launched from src/backend/cuda alone")
                } else if (file ~ /^include\//) report("includes " name ": public headers include public ones")
                else if (name !~ /^[a-z0-9_]+_impl\.h$/ && from != "kernels")
                    report("includes " name ": private headers are named *_impl.h and lie beside their users")
                else if ((getline unused < (base name)) < 0)
                    report("includes " name ", which is not in " base)
                close(base name)
            }
        }

        # The line without comments and without the content of texts; is_comment carries over to the next line.
        function code_of(line,   out, c, two, quote) {
            out = ""
            while (line != "") {
                c = substr(line, 1, 1); two = substr(line, 1, 2)
                if (is_comment) {
                    if (two == "*/") { is_comment = 0; line = substr(line, 3); out = out " " }
                    else line = substr(line, 2)
                } else if (two == "/*") { is_comment = 1; line = substr(line, 3) }
                else if (two == "//") break
                else if (c == "\"" || c == "\047") {
                    quote = c
                    line = substr(line, 2)
                    while (line != "" && substr(line, 1, 1) != quote)
                        line = substr(line, substr(line, 1, 1) == "\\" ? 3 : 2)
                    line = substr(line, 2)
                    out = out quote quote
                } else { out = out c; line = substr(line, 2) }
            }
            return out
        }

        function check_file(   line, code, i, name, is_quoted, was_comment) {
            from = module_of(file)
            FNR_ = 0
            is_comment = 0
            if (!(from in level) && from != "kernels") { FNR_ = 1; report("belongs to no layer"); return }
            while ((getline line < file) > 0) {
                FNR_++
                was_comment = is_comment
                code = code_of(line)
                if (!was_comment && line ~ /^[ \t]*#[ \t]*include[ \t]*["<]/) {
                    name = line
                    is_quoted = name ~ /include[ \t]*"/
                    sub(/^[^"<]*["<]/, "", name); sub(/[">].*/, "", name)
                    check_include(name, is_quoted)
                    continue
                }
                for (i = 1; i <= n_endings; i++)
                    if (index(code, ending[i]) && code ~ ("(^|[^A-Za-z0-9_.>])" ending[i] "[ \t]*\\(") &&
                        !is_within(file, ending_places[i]))
                        report("calls " ending[i] "(), but that is only for " ending_places[i])
            }
            close(file)
        }

        BEGIN {
            n = split(layers, layer, "|")
            for (i = 1; i <= n; i++) {
                m = split(layer[i], module, " ")
                for (j = 1; j <= m; j++) level[module[j]] = i
            }
            n = split(within, row, "\n")
            for (i = 1; i <= n; i++) { sub(/:.*/, "", row[i]); is_allowed[row[i]] }
            n = split(libraries, row, "\n")
            for (i = 1; i <= n; i++) if (row[i] != "") {
                n_libraries++
                library[n_libraries] = row[i]; sub(/:.*/, "", library[n_libraries])
                pattern[n_libraries] = row[i]
                sub(/^[^:]*: /, "", pattern[n_libraries]); sub(/ = .*/, "", pattern[n_libraries])
                places[n_libraries] = row[i]; sub(/.* = /, "", places[n_libraries])
            }
            n = split(endings, row, "\n")
            for (i = 1; i <= n; i++) if (row[i] != "") {
                n_endings++
                ending[n_endings] = row[i]; sub(/:.*/, "", ending[n_endings])
                ending_places[n_endings] = row[i]; sub(/^[^:]*: */, "", ending_places[n_endings])
            }
        }
        { file = $0; n_files++; check_file() }
        END {
            if (n_found) { printf "check-layers: %d findings in %d files\n", n_found, n_files; exit 1 }
            printf "check-layers: %d files keep to their layers\n", n_files
        }'
    )
}

# A small tree that keeps all rules, then one more line that breaks one of them.
self_test() {
    local tree failed=0 n=0
    tree=$(mktemp -d "${TMPDIR:-/tmp}/hirl-layers.XXXXXX") || exit 2
    # shellcheck disable=SC2064 # this folder, now
    trap "rm -rf '$tree'" EXIT

    # expect FINDING FILE LINE...: the tree with these lines at the end of the file yields this finding.
    expect() {
        local want=$1 file=$2 got
        shift 2
        rm -rf "${tree:?}"/*
        mkdir -p "$tree"/include/hirl "$tree"/src/{base,deck,par,backend/cpu,backend/ref,tape,nn,data,ckpt,cluster,ssl,app} \
            "$tree"/kernels
        printf '#include "hirl/base.h"\n' | tee "$tree"/include/hirl/{deck,par,tape,nn,cluster,ssl}.h >/dev/null
        printf '#include <stddef.h>\n' >"$tree/include/hirl/base.h"
        printf '#include <mpi.h>\n' >>"$tree/include/hirl/par.h"
        printf '// what a backend writer needs\n#include "hirl/base.h"\n' >"$tree/include/hirl/backend_ops.h"
        printf '#include <dnnl.h>\n#include "hirl/backend_ops.h"\n#include "cpu_impl.h"\n' >"$tree/src/backend/cpu/a.c"
        printf 'int x;\n' >"$tree/src/backend/cpu/cpu_impl.h"
        printf '/* abort(); and\n#include <dnnl.h>\nexit(1) */\nconst char *s = "exit(1)"; // exit(1)\nint my_exit(int);\n' \
            >"$tree/src/nn/a.c"
        printf 'void f(void) { at->exit(1); x.abort(); char c = %s; }\n' "'\"'" >>"$tree/src/nn/a.c"
        printf '#include <faiss/c_api/Clustering_c.h>\n' >"$tree/src/cluster/a.c"
        printf '#include <hdf5.h>\n' | tee "$tree/src/data/a.c" "$tree/src/ckpt/a.c" >/dev/null
        printf '#include "hirl/cluster.h"\n#include "hirl/tape.h"\n#include "hirl/nn.h"\n' >"$tree/src/ssl/a.c"
        printf '#include "hirl/ssl.h"\nint main(void) { exit(0); }\n' >"$tree/src/app/main.c"
        printf 'void g(void) { MPI_Abort(MPI_COMM_WORLD, 1); }\n' >"$tree/src/par/a.c"
        printf '#include <cuda_runtime.h>\n' >"$tree/kernels/a.cu"
        [ $# -eq 0 ] || { mkdir -p "$tree/${file%/*}" && printf '%s\n' "$@" >>"$tree/$file"; }
        got=$(check_tree "$tree")
        n=$((n + 1))
        if ! grep -qF -- "$want" <<<"$got"; then
            failed=$((failed + 1))
            printf 'check-layers: self-test: %s with "%s": want "%s", got:\n%s\n' "$file" "$*" "$want" "$got"
        fi
    }

    expect 'files keep to their layers' ''
    expect 'tape lies below nn' src/tape/a.c '#include "hirl/nn.h"'
    expect 'nn and optim are of one layer' src/nn/b.c '#include "hirl/optim.h"'
    expect 'files keep to their layers' src/optim/a.c '#include "hirl/nn.h"'
    expect 'base lies below deck' include/hirl/base.h '#include "hirl/deck.h"'
    expect 'deck and par are of one layer' src/deck/a.c '#  include "hirl/par.h"'
    expect 'cluster lies below ssl' src/cluster/b.c '#include <hirl/ssl.h>'
    expect 'tape lies below app' include/hirl/tape.h '#include "hirl/app.h"'
    expect 'belongs to no layer' src/nn/b.c '#include "hirl/misc.h"'
    expect 'belongs to no layer' src/misc/a.c 'int x;'
    expect 'oneDNN is only for src/backend/cpu/' src/backend/ref/a.c '#include <dnnl.h>'
    expect 'oneDNN is only for' include/hirl/nn.h '#include "oneapi/dnnl/dnnl.h"'
    expect 'MPI is only for' src/ckpt/b.c '#include <mpi.h>'
    expect 'HDF5 is only for' src/app/main.c '#include <hdf5.h>'
    expect 'HDF5 is only for' src/ssl/b.c '#include <H5public.h>'
    expect 'CUDA is only for' src/nn/b.c '#include <cuda_runtime.h>'
    expect 'CUDA is only for' src/tape/b.c '#include <cublas_v2.h>'
    expect 'kernels are launched from src/backend/cuda alone' src/nn/b.c '#include "kernels/row.h"'
    expect 'files keep to their layers' src/backend/cuda/b.c '#include "kernels/row.h"'
    expect 'FAISS is only for src/cluster/' src/ssl/b.c '#include <faiss/c_api/Index_c.h>'
    expect 'by a path upwards' src/backend/ref/a.c '#include "../cpu/cpu_impl.h"'
    expect 'which is not in src/nn/' src/nn/b.c '#include "cpu_impl.h"'
    expect 'private headers are named' src/nn/b.c '#include "helpers.h"'
    expect 'public headers include public ones' include/hirl/nn.h '#include "nn_impl.h"'
    expect 'kernels know nothing' kernels/b.cu '#include "hirl/base.h"'
    expect 'src/nn/b.c:2: calls exit()' src/nn/b.c '/* one' ' * two */ int f(void) { exit(1); }'
    expect 'calls abort()' src/nn/b.c 'void f(void) { if (1) abort (); }'
    expect 'calls _exit()' src/par/a.c 'void f(void) { _exit(1); }'
    expect 'calls H5Fopen()' src/ckpt/b.c 'void f(void) { (void)H5Fopen("a", 0, 0); }'
    expect 'calls MPI_Abort()' src/train/a.c 'void f(void) { MPI_Abort(MPI_COMM_WORLD, 1); }'
    expect 'calls exit()' src/nn/b.c 'const char *s = "\""; int f(void) { exit(1); }'
    if [ "$failed" -ne 0 ]; then
        echo "check-layers: self-test: $failed of $n failed"
        exit 1
    fi
    echo "check-layers: self-test: $n cases found what they should"
}

case ${1:-} in
    --self-test) self_test ;;
    '') echo 'usage: check_layers.sh ROOT | --self-test' >&2 && exit 2 ;;
    *) check_tree "$1" ;;
esac
