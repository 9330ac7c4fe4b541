#!/usr/bin/env bash
# The bundle for machines without packages: it can be made, its members need nothing but each other
# and what every system has, its headers need only the C library's, a program that is built with
# its settings finds its libraries and Open MPI's plugins without environment, and mpirun works.
# test: timeout=900 needs=patchelf,xz
set -eu -o pipefail
archive=$HIRL_TMP/tree/build/bundle.tar.xz
make --no-print-directory CUDA= LEVEL=0 BUNDLE_ARCHIVE="$archive" bundle-archive
cp -R validation/gpu "$HIRL_TMP/tree/"
cd "$HIRL_TMP/tree"
mkdir -p build/release/unit
gpu/bundle.sh unpack build/bundle.tar.xz
cat >build/main.c <<'LIST'
#include <mpi.h>
#include <stdio.h>
#include <hdf5.h>
#include <hwloc.h>
#include <zlib.h>

int main(int argc, char **argv) {
    int sum = 0, rank, major, minor, release;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Allreduce(&(int){1}, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    H5get_libversion(&major, &minor, &release);
    if (rank == 0) printf("ranks = %d hdf5 = %d zlib = %s\n", sum, major, zlibVersion());
    return MPI_Finalize();
}
LIST
cat >Makefile <<'LIST'
include config.mk
program:
	$(CC) -isystem $(BUNDLE)/include -o $(OUT) build/main.c $(LDFLAGS) $(MPI_LIBS) $(HDF5_LIBS) \
	    $(OTHER_LIBS)
LIST
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
unset OMPI_MCA_ess_singleton_isolated
for out in hirl.x build/release/hirl.x build/release/unit/t000; do
    make --no-print-directory -s program OUT=$out CC=gcc
    ldd $out | awk '$3 ~ /^\// { print $3 }' | while read -r file; do
        case $(realpath "$file") in
            "$(realpath build/bundle/lib)"/*) ;;
            *) case ${file##*/} in
                lib[cm].so* | libm*.so* | libdl* | librt* | libpthread* | libresolv* | ld-linux*) ;;
                libstdc++* | libgcc_s* | libgomp*) ;;
                *) echo "$out takes $file from this system" && exit 1 ;;
            esac ;;
        esac
    done
    # A path that is wrong for this Open MPI, as another one on the machine would leave it.
    OPAL_PREFIX=/nowhere ./$out | grep -x 'ranks = 1 hdf5 = 1 zlib = .*'
    # No ssh, rsh or other Open MPI within reach.
    env PATH=/nowhere "$PWD/build/bundle/bin/mpirun" -q --oversubscribe -n 2 ./$out |
        grep -x 'ranks = 2 hdf5 = 1 zlib = .*'
done

# The checks themselves: a library that is gone, and one that looks elsewhere, must be found.
rm build/bundle/lib/libz.so.1
if gpu/bundle.sh test build/bundle 2>bad.log; then
    echo "a missing library was not noticed"
    exit 1
fi
grep -q 'needs libz.so.1, which is neither here' bad.log
patchelf --set-rpath /usr/lib build/bundle/lib/libpng16.so.16
if gpu/bundle.sh test build/bundle 2>bad.log; then echo 'a run path was not noticed' && exit 1; fi
grep -q "libpng16.so.16 looks for libraries in '/usr/lib'" bad.log
echo 'ok'
