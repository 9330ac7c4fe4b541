#!/usr/bin/env python3
"""Clustering and search on a GPU: gpu_kmeans.py [--emulated].

K-means of 1 000 000 rows of 128 columns into 10 000 clusters, 20 iterations, and the 200 nearest
of 10 000 queries among these rows. Peers in the same run: cuBLAS's products alone (f32, without
TF32, written in blocks and not looked at), and FAISS on the same rows: on the GPU where Python's
FAISS has it, else on the processor's cores with one iteration.

Prints `bench:` lines. --emulated: small, on the emulated device, and no times.
"""
import os
import subprocess
import sys
import tempfile
import time

N, D, K, N_ITER, N_QUERIES, K_NEAREST = 1000000, 128, 10000, 20, 10000, 200
SMALL = 2000, 16, 50, 2, 40, 10


def ours(build, sizes, rows):
    program = build + "/bench/gpu_kmeans"
    if not os.path.exists(program):
        print("skip: no %s (make CUDA=1 benches)" % program)
        sys.exit(77)
    command = [program, "cuda"] + [str(s) for s in sizes] + ([rows] if rows else [])
    text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return dict(line.split(" = ", 1) for line in text.splitlines() if " = " in line)


def load_faiss():
    try:
        import faiss
        import numpy
    except ImportError:
        return None, None
    return faiss, numpy


def peer_kmeans(faiss, x, device):
    c = faiss.Clustering(D, K)
    c.niter, c.nredo, c.seed, c.max_points_per_centroid = (N_ITER if device else 1), 1, 1234, N
    index = faiss.IndexFlatL2(D)
    if device:
        config = faiss.GpuIndexFlatConfig()
        index = faiss.GpuIndexFlatL2(faiss.StandardGpuResources(), D, config)
    start = time.perf_counter()
    c.train(x, index)
    stats = c.iteration_stats.at(c.niter - 1)
    return time.perf_counter() - start, stats.obj


def peer_knn(faiss, bank, query, device):
    start = time.perf_counter()
    if device:
        config = faiss.GpuIndexFlatConfig()
        index = faiss.GpuIndexFlatIP(faiss.StandardGpuResources(), D, config)
    else:
        index = faiss.IndexFlatIP(D)
    index.add(bank)
    index.search(query, K_NEAREST)
    return time.perf_counter() - start


def main():
    build = os.environ.get("HIRL_BUILD", "build/release-cuda")
    if "--emulated" in sys.argv[1:]:
        found = ours(build, SMALL, "")
        print("bench: clustering on %s: bits of the processor's engine: %s"
              % (found["device"], found["same_bits"]))
        return found["same_bits"] != "yes"
    with tempfile.TemporaryDirectory(prefix="hirl-kmeans.") as folder:
        rows = folder + "/rows.f32"
        found = ours(build, (N, D, K, N_ITER, N_QUERIES, K_NEAREST), rows)
        second = {w: float(found[w + "_seconds"])
                  for w in ("kmeans", "iteration", "nearest", "product", "knn")}
        tera = 2e-12 * N * K * D
        print("bench: clustering on %s: bits of the processor's engine: %s"
              % (found["device"], found["same_bits"]))
        print("bench: K-means n %d d %d k %d: %d iterations %.2f s, one %.4f s, objective %s"
              % (N, D, K, N_ITER, second["kmeans"], second["iteration"], found["objective"]))
        print("bench: nearest rows %.4f s = %.1f TFLOP/s; cuBLAS's products alone %.4f s: "
              "ratio %.2f" % (second["nearest"], tera / second["nearest"], second["product"],
                              second["nearest"] / second["product"]))
        print("bench: KNN %d of %d for %d queries: %.3f s"
              % (K_NEAREST, N, N_QUERIES, second["knn"]))
        sys.stdout.flush()
        faiss, numpy = load_faiss()
        if not faiss:
            print("bench: FAISS: not compared, Python has none here")
            return found["same_bits"] != "yes"
        x = numpy.fromfile(rows, "f4").reshape(-1, D)
        device = hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0
        where = "GPU" if device else "%d threads" % faiss.omp_get_max_threads()
        seconds, objective = peer_kmeans(faiss, x[:N], device)
        mine = second["kmeans"] if device else second["iteration"]
        print("bench: FAISS %s K-means, %s, %s: %.2f s, objective %.9g, ours / theirs %.3f"
              % (faiss.__version__, where, "20 iterations" if device else "one iteration",
                 seconds, objective, mine / seconds))
        seconds = peer_knn(faiss, x[:N], x[N:], device)
        print("bench: FAISS %s KNN, %s: %.3f s, ours / theirs %.3f"
              % (faiss.__version__, where, seconds, second["knn"] / seconds))
    return found["same_bits"] != "yes"


if __name__ == "__main__":
    sys.exit(main())
