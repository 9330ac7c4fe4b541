#!/usr/bin/env bash
# Collect what a machine with CUDA, a compiler and make lacks to build and run hirl.x.
#
#   bundle.sh make ARCHIVE      write it, whole or not at all (`make bundle` calls this)
#   bundle.sh unpack ARCHIVE    unpack it beside itself as bundle/, put its settings into config.mk
#   bundle.sh test FOLDER       check an unpacked bundle: does it hold what its members need?
#
# In the archive: bundle/{include,lib,bin,share,config.mk}. On the other machine, in the root:
#
#   validation/gpu/bundle.sh unpack build/bundle.tar.xz && make CUDA=1
#
# Headers, libraries and what those need come from this machine, all but the run-time libraries of
# C and C++ and CUDA's: the other machine's must be as new as this one's. Libraries look for each
# other in their own folder, programs for them relative to themselves, so the project may lie
# anywhere. Open MPI's plugins for fabrics between nodes are left out: those belong to a machine.
#
# Environment of `make`: CC, INCLUDES (-I and -isystem), MPI_LIBS, HDF5_LIBS, DNNL_LIBS, BLAS_LIBS,
# FAISS_LIBS, FAISS_C_LIB, OTHER_LIBS as the makefile has them, BLAS_VERSION; LEVEL of xz (6); DATA,
# a folder of data to take along as share/data.
# shellcheck disable=SC2016 # $ORIGIN and $(BUNDLE) are for the loader and for make
set -u -o pipefail

limit_mib=60
# Part of every system with a C++ compiler that knows OpenMP; and CUDA's own.
system='^(ld-linux.*|linux-vdso|libstdc\+\+|libgcc_s|libgomp)\.so'
system_c='^lib(c|m|mvec|pthread|dl|rt|resolv|util|anl|nsl)\.so'
cuda='^lib(cuda|cudart|cublas|cublasLt|cudnn.*|nccl|nvrtc|nvidia-.*)\.so'
fabrics='lib(ibverbs|rdmacm|fabric|ucp|uct|ucs|psm_infinipath|psm2|infinipath|oshmem)\.so'

die() {
    printf 'bundle: %s\n' "$@" >&2
    exit 1
}

must() { "$@" || die "this failed: $*"; }

# Print the library's own name for itself, or nothing.
soname_of() { readelf -d "$1" | sed -n 's/.*(SONAME).*\[\(.*\)\]/\1/p'; }

# ---------------------------------------------------------------------------------- what goes in

# Print the folders that the compiler looks for headers in, those of INCLUDES first.
header_folders() {
    local word
    for word in ${INCLUDES:-}; do
        case $word in
            -isystem?* | -I?*) word=${word#-isystem} && printf '%s\n' "${word#-I}" ;;
        esac
    done
    "$cc" -E -Wp,-v -x c /dev/null 2>&1 >/dev/null | sed -n 's/^ \//\//p'
}

# Copy headers, each line from the first folder that has its first name.
copy_headers() {
    local first rest pattern dir file found
    while read -r first rest; do
        found=''
        while read -r dir; do
            [ -e "$dir/$first" ] || continue
            found=$dir
            break
        done <<<"$folders"
        [ -n "$found" ] ||
            die "no header $first in: ${folders//$'\n'/ }" "'make deps' installs what is needed"
        for pattern in "$first" $rest; do
            for file in "$found"/$pattern; do
                [ -e "$file" ] || continue
                file=${file#"$found/"}
                dir=$out/include/$(dirname "$file")
                must mkdir -p "$dir"
                must cp -rL "$found/$file" "$dir/"
            done
        done
    done <<'LIST'
mpi.h mpi-ext.h mpi_portable_platform.h openmpi/mpiext
hdf5.h H5*.h
dnnl.h dnnl_*.h
oneapi/dnnl/dnnl.h oneapi/dnnl/*.h
faiss/Index.h faiss
cblas.h openblas_config.h f77blas.h
turbojpeg.h
jpeglib.h jerror.h jmorecfg.h
jconfig.h
png.h pngconf.h pnglibconf.h
webp/decode.h webp
zlib.h
zconf.h
xxhash.h xxh3.h
hwloc.h hwloc
hwloc/autogen/config.h
cjson/cJSON.h
Random123/philox.h Random123
LIST
}

# Copy the library $1 under the name that programs ask for, stripped; remember where it came from.
declare -A taken
copy_library() {
    local name
    name=$(soname_of "$1")
    name=${name:-$(basename "$1")}
    [ -z "${taken[$name]:-}" ] || return 0
    taken[$name]=$1
    must cp -L "$1" "$out/lib/$name"
    must chmod 755 "$out/lib/$name"
    must strip --strip-unneeded "$out/lib/$name"
}

# Copy what the program or library $1 needs, itself excepted.
copy_needs() {
    local name path
    while read -r name path; do
        [ -n "$path" ] || die "$1 needs $name, which this machine does not have"
        [[ $name =~ $system || $name =~ $system_c || $name =~ $cuda ]] || copy_library "$path"
    done < <(ldd "$1" | awk '$2 == "=>" { print $1, ($3 ~ /^\//) ? $3 : "" }')
}

# Copy the libraries that the link line $1 names, with a link for the linker.
copy_linked() {
    local word dir file name
    local -a dirs=()
    for word in $1; do [[ $word != -L* ]] || dirs+=("${word#-L}"); done
    for word in $1; do
        case $word in
            -lstdc++ | -lm | -ldl | -lpthread | -lrt) continue ;;
            -l*) ;;
            *.a) copy_archive "$word" && continue ;;
            *) continue ;;
        esac
        name=lib${word#-l}
        file=''
        for dir in ${dirs[@]+"${dirs[@]}"}; do
            [ -e "$dir/$name.so" ] && file=$dir/$name.so && break
        done
        [ -n "$file" ] || file=$("$cc" -print-file-name="$name.so")
        [ -e "$file" ] || file=$("$cc" -print-file-name="$name.a")
        [ -e "$file" ] || die "no library for $word"
        if [[ $file == *.a ]]; then
            copy_archive "$file"
        else
            copy_needs "$file"
            copy_library "$(readlink -f "$file")"
            file=$(soname_of "$file")
            [ "$file" = "$name.so" ] || must ln -sfn "$file" "$out/lib/$name.so"
        fi
    done
}

copy_archive() {
    must cp -L "$1" "$out/lib/"
    must strip -g "$out/lib/$(basename "$1")"
}

# Copy the plugin $1 into the folder $2 with what it needs.
copy_plugin() {
    copy_needs "$1"
    must cp -L "$1" "$2/"
    must strip --strip-unneeded "$2/$(basename "$1")"
}

# Copy the programs, plugins and texts of Open MPI, whose own tool knows where they are, and PMIx's.
copy_openmpi() {
    local info plugins data config file
    info=$(ompi_info --parsable --path all 2>/dev/null) || die "ompi_info failed"
    plugins=$(sed -n 's/^path:pkglibdir://p' <<<"$info" | head -n 1)
    data=$(sed -n 's/^path:pkgdatadir://p' <<<"$info" | head -n 1)
    config=$(sed -n 's/^path:sysconfdir://p' <<<"$info" | head -n 1)
    if ! [ -d "$plugins" ] || ! [ -d "$data" ]; then
        die "ompi_info names no folders: '$plugins', '$data'"
    fi
    must mkdir -p "$out/lib/openmpi" "$out/lib/pmix" "$out/share/openmpi" "$out/share/pmix"
    for file in "$plugins"/mca_*.so; do
        # Not grep -q: what it leaves unread would make ldd fail.
        ldd "$file" | grep -E "$fabrics" >/dev/null || copy_plugin "$file" "$out/lib/openmpi"
    done
    must cp -rL "$data/." "$out/share/openmpi/"
    must cp -L "$config"/openmpi-* "$out/share/openmpi/"
    # One machine: there may be no ssh to start daemons on others, and a lone program needs none.
    printf '\n%s = %s\n' plm isolated ess_singleton_isolated 1 \
        >>"$out/share/openmpi/openmpi-mca-params.conf"
    for file in orterun orted; do
        copy_plugin "$(command -v $file)" "$out/bin"
    done
    must ln -s orterun "$out/bin/mpirun"
    # PMIx: beside the library itself.
    [ -n "${taken[libpmix.so.2]:-}" ] || return 0
    for file in "$(dirname "$(readlink -f "${taken[libpmix.so.2]}")")"/pmix/*.so; do
        [ ! -e "$file" ] || copy_plugin "$file" "$out/lib/pmix"
    done
}

# Each member looks for others relative to itself; by the older tag, which what it loads inherits.
set_run_paths() {
    local file patch=(patchelf --force-rpath --set-rpath)
    must "$cc" -std=c17 -D_GNU_SOURCE -O2 -Wall -Wextra -fPIC -shared -s \
        -Wl,-soname,libbundle_paths.so -o "$out/lib/libbundle_paths.so" "$here/bundle_paths.c" -ldl
    for file in "$out"/lib/*.so*; do
        [ -L "$file" ] || must "${patch[@]}" '$ORIGIN' "$file"
    done
    for file in "$out"/lib/openmpi/*.so "$out"/lib/pmix/*.so; do
        [ ! -e "$file" ] || must "${patch[@]}" '$ORIGIN/..' "$file"
    done
    must "${patch[@]}" '$ORIGIN/../lib' "$out/bin/orterun" "$out/bin/orted"
    for file in "$out"/lib/libopen-pal.so.* "$out"/lib/libpmix.so.*; do
        [ ! -e "$file" ] || must patchelf --add-needed libbundle_paths.so "$file"
    done
}

version_of() { pkg-config --modversion "$1" 2>/dev/null; }

# The libraries of the link line $1 as the bundle names them.
libraries_of() {
    local word
    for word in $1; do
        case $word in
            -lstdc++ | -lm | -ldl | -lpthread | -lrt) printf ' %s' "$word" ;;
            -l*)
                if [ -e "$out/lib/lib${word#-l}.so" ]; then
                    printf ' %s' "$word"
                else
                    printf ' $(BUNDLE)/lib/lib%s.a' "${word#-l}"
                fi
                ;;
            *.a) printf ' $(BUNDLE)/lib/%s' "$(basename "$word")" ;;
        esac
    done
}

write_settings() {
    local name
    cat >"$out/config.mk" <<LIST || die "cannot write $out/config.mk"
# Written by bundle.sh: build with the headers and libraries in build/bundle.
BUNDLE := build/bundle
DEPS = none
MPI_CFLAGS = -I\$(BUNDLE)/include
MPI_LIBS = -L\$(BUNDLE)/lib$(libraries_of "$MPI_LIBS")
MPIRUN := \$(abspath \$(BUNDLE)/bin/mpirun)
HDF5_CFLAGS =
HDF5_LIBS =$(libraries_of "$HDF5_LIBS")
BLAS_CFLAGS =
BLAS_LIBS =$(libraries_of "$BLAS_LIBS")
BLAS_VERSION = ${BLAS_VERSION:-}
DNNL_CFLAGS =
DNNL_LIBS =$(libraries_of "$DNNL_LIBS")
FAISS_INCLUDE = \$(BUNDLE)/include
FAISS_LIBS =$(libraries_of "$FAISS_LIBS")
FAISS_C_LIB =$(libraries_of "$FAISS_C_LIB")
WEBP = ${WEBP:-}
OTHER_CFLAGS =
OTHER_LIBS =$(libraries_of "$OTHER_LIBS")
TURBOJPEG_VERSION = $(version_of libturbojpeg)
HWLOC_VERSION = $(version_of hwloc)
# Programs lie in the root, in build/<variant> and one folder below that.
LDFLAGS = -Wl,--disable-new-dtags -Wl,-rpath-link,\$(BUNDLE)/lib
LDFLAGS += '-Wl,-rpath,\$\$ORIGIN/build/bundle/lib' '-Wl,-rpath,\$\$ORIGIN/../bundle/lib'
LDFLAGS += '-Wl,-rpath,\$\$ORIGIN/../../bundle/lib'
LIST
    {
        echo "compiler = $("$cc" -dumpfullversion)"
        ldd --version | sed -n '1s/.* /glibc = /p'
        sed -n 's/^PRETTY_NAME="\(.*\)"/system = \1/p' /etc/os-release 2>/dev/null
        for name in "${!taken[@]}"; do
            echo "$name = $(basename "$(readlink -f "${taken[$name]}")")"
        done | LC_ALL=C sort
    } >"$out/share/origin"
}

# ---------------------------------------------------------------------------------- what is checked

n_bad=0
bad() {
    echo "bundle: $*" >&2
    n_bad=$((n_bad + 1))
}

# What a member needs must be in the bundle or part of every system, and be looked for there alone.
check_folder() {
    local root=$1 file need path n=0
    for file in "$root"/lib/*.so* "$root"/{lib/openmpi,lib/pmix}/*.so "$root"/bin/*; do
        if [ -L "$file" ]; then
            [ -e "$file" ] || bad "${file#"$root/"} is a link to nothing"
            continue
        fi
        [ -e "$file" ] || continue
        n=$((n + 1))
        path=$(readelf -d "$file" | sed -n 's/.*(R.*PATH).*\[\(.*\)\]/\1/p')
        case ${file#"$root/"}:$path in
            bin/*:'$ORIGIN/../lib' | lib/*/*:'$ORIGIN/..' | lib/*:'$ORIGIN') ;;
            *) bad "${file#"$root/"} looks for libraries in '$path'" ;;
        esac
        for need in $(readelf -d "$file" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'); do
            [ -e "$root/lib/$need" ] || [[ $need =~ $system || $need =~ $system_c ]] ||
                bad "${file#"$root/"} needs $need, which is neither here nor part of every system"
        done
    done
    for file in "$root"/lib/*; do
        [[ ! ${file##*/} =~ $fabrics ]] || bad "${file#"$root/"} belongs to a machine"
    done
    for file in bin/mpirun bin/orted lib/openmpi/mca_pml_ob1.so include/mpi.h include/hdf5.h \
        lib/libmpi.so lib/libhdf5.so share/openmpi/help-mpi-runtime.txt config.mk; do
        [ -e "$root/$file" ] || bad "$file is missing"
    done
    [ $n -gt 100 ] || bad "only $n programs and libraries"
    [ $n_bad -eq 0 ] || die "$n_bad faults in $n programs and libraries"
    echo "bundle: $n programs and libraries need only each other and what every system has"
}

# Where packages own files: headers from outside the bundle must be of the C library or compiler.
check_headers() {
    local files
    command -v dpkg-query >/dev/null || return 0
    files=$(printf '#include <%s>\n' mpi.h hdf5.h dnnl.h dnnl_debug.h cblas.h turbojpeg.h jpeglib.h jerror.h \
        png.h webp/decode.h zlib.h xxhash.h hwloc.h cjson/cJSON.h Random123/philox.h faiss/c_api/Clustering_c.h \
        faiss/c_api/IndexFlat_c.h faiss/c_api/error_c.h |
        "$cc" -M -I"$1/include" -x c - | tr ' ' '\n' | grep '^/' | grep -v "^$1/" | xargs realpath)
    [ -n "$files" ] || die "the bundle's headers cannot be compiled"
    # shellcheck disable=SC2086 # one word a file
    files=$(dpkg-query -S $files | grep -vE '^(libc6-dev|linux-libc-dev|libgcc-[0-9]+-dev)[:,]')
    [ -z "$files" ] || die "headers that the bundle lacks:" "$files"
}

# ---------------------------------------------------------------------------------- commands

make_bundle() {
    local archive=$1 bytes name
    : "${MPI_LIBS:?}" "${HDF5_LIBS:?}" "${DNNL_LIBS:?}" "${BLAS_LIBS:?}" "${FAISS_LIBS:?}"
    : "${FAISS_C_LIB:?}" "${OTHER_LIBS:?}"
    for name in patchelf strip readelf xz ompi_info "$cc"; do
        command -v "$name" >/dev/null ||
            die "$name is not installed (on Debian: validation/harness/deps.sh packages bundle)"
    done
    must mkdir -p "$(dirname "$archive")"
    work=$(mktemp -d "$archive.XXXXXX") || exit 1
    trap 'rm -rf "$work"' EXIT
    out=$work/bundle
    must mkdir -p "$out/include" "$out/lib" "$out/bin" "$out/share"
    folders=$(header_folders)
    copy_headers
    copy_linked "$FAISS_C_LIB $FAISS_LIBS $DNNL_LIBS $BLAS_LIBS $HDF5_LIBS $OTHER_LIBS $MPI_LIBS"
    copy_openmpi
    set_run_paths
    write_settings
    [ -z "${DATA:-}" ] || must cp -rL "$DATA/." "$out/share/data"
    check_folder "$out"
    check_headers "$(realpath "$out")"
    # The same files give the same archive.
    tar -C "$work" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -cf - bundle |
        xz -T0 -"${LEVEL:-6}" >"$work/archive" || die "cannot write $archive"
    bytes=$(stat -c %s "$work/archive")
    if [ "$bytes" -gt $((limit_mib << 20)) ]; then
        echo "bundle: the largest members, in bytes before compression:" >&2
        find "$out" -type f -printf '%s %P\n' | sort -rn | head -n 5 >&2
        die "the archive has $bytes bytes, at most $limit_mib MiB are allowed"
    fi
    must mv "$work/archive" "$archive"
    echo "bundle: $archive, $(((bytes + 1048575) >> 20)) MiB," \
        "$(du -sm "$out" | cut -f1) MiB unpacked"
}

unpack_bundle() {
    local archive=$1 folder need have
    [ -f "$archive" ] || die "no $archive: 'make bundle' on a machine with packages writes it"
    folder=$(dirname "$archive")
    work=$(mktemp -d "$folder/bundle.XXXXXX") || exit 1
    trap 'rm -rf "$work"' EXIT
    if command -v xz >/dev/null; then
        must tar -C "$work" -xJf "$archive"
    else
        must python3 -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' \
            "$archive" "$work"
    fi
    need=$(sed -n 's/^glibc = //p' "$work/bundle/share/origin")
    have=$(ldd --version 2>/dev/null | sed -n '1s/.* //p')
    [ "$(printf '%s\n' "$need" "$have" | sort -V | head -n 1)" = "$need" ] ||
        die "the bundle needs glibc $need or newer, here is '$have': make it on an older system"
    must rm -rf "$folder/bundle"
    must mv "$work/bundle" "$folder/bundle"
    if [ -e config.mk ] && ! cmp -s config.mk "$folder/bundle/config.mk"; then
        echo "bundle: config.mk is kept; the bundle's settings are in $folder/bundle/config.mk"
    else
        must cp "$folder/bundle/config.mk" config.mk
    fi
    echo "bundle: unpacked into $folder/bundle"
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd) || exit 1
cc=${CC:-gcc}
case ${1:-} in
    make) make_bundle "${2:?the archive to write}" ;;
    unpack) unpack_bundle "${2:?the archive}" ;;
    test) check_folder "${2:?an unpacked bundle}" ;;
    *) die "usage: bundle.sh make ARCHIVE | unpack ARCHIVE | test FOLDER" ;;
esac
