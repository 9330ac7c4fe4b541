#!/usr/bin/env python3
"""Reference data of the clustering and KNN tests, made with FAISS's Python module and NumPy.

    /usr/bin/python3 make_reference.py

writes beside itself, little-endian, without headers (shapes: below and in the tests):

    permutation.i32          [2, 1000]   faiss.rand_perm of 1000 items, seeds 1234 and 3 + 1 + 4 * 15486557
    x.f32                    [3000, 24]  unit-norm rows around 60 centres, as in a trained embedding
    label.i32                [3000]      the centre of each row, modulo 20; half of them replaced at random
    kmeans.f64               [6]         objectives: k = 50 seed 3 (1 and 5 restarts, 20 iterations); k = 50 with at most
                                         20 points each; y, k = 100, seed 5, where clusters become empty on the way
                                         (1 and 5 restarts); splits of the last but one
    y.f32                    [3000, 24]  as x, with less noise
    centroid.f32             [50, 24]    of the first
    level<l>_centroid.f32    [k, 24]     a hierarchy of 120, 40, 8 clusters as HIRL builds it: seed l, 20 iterations,
    level<l>_assign.i32      [3000]      5 restarts, at most 1000 points each
    level<l>_parent.i32      [k]
    level<l>_density.f32     [k]         T = 0.2
    knn_index.i64            [500, 50]   x[:500] looked up in x[500:], by cosine in double precision
    knn_score.f64            [500, 50]
    knn_accuracy.f64         [2, 4]      weighted votes, T = 0.07, k = 5 10 20 50: top-1, top-5 in percent

Written with faiss 1.7.3, numpy 1.24.2, Python 3.11.2; seed 7.
"""
import os
import sys

import faiss
import numpy as np

os.chdir(os.path.dirname(os.path.abspath(__file__)))
faiss.omp_set_num_threads(1)
D = 24


def save(name, a, dtype):
    np.ascontiguousarray(a, dtype=np.dtype(dtype).newbyteorder("<")).tofile(name)


def unit(a):
    return a / np.maximum(np.linalg.norm(a.astype("f8"), axis=1, keepdims=True), 1e-12)


def permutation(n, seed):
    p = np.zeros(n, "i4")
    faiss.rand_perm(faiss.swig_ptr(p), n, seed)
    return p


def kmeans(x, k, seed, n_iter=20, n_redo=1, max_points=1000):
    c = faiss.Clustering(x.shape[1], k)
    c.niter, c.nredo, c.seed, c.max_points_per_centroid, c.min_points_per_centroid = n_iter, n_redo, seed, max_points, 1
    index = faiss.IndexFlatL2(x.shape[1])
    c.train(np.ascontiguousarray(x, "f4"), index)
    stats = c.iteration_stats
    last = stats.at(stats.size() - 1)
    splits = sum(stats.at(i).nsplit for i in range(stats.size() - n_iter, stats.size()))
    return faiss.vector_to_array(c.centroids).reshape(k, -1).astype("f4"), last.obj, splits


def density(x, raw, assign, k, temperature):
    distance = np.linalg.norm(x.astype("f8") - raw.astype("f8")[assign], axis=1)
    size = np.bincount(assign, minlength=k)
    phi = np.bincount(assign, weights=distance, minlength=k) / np.maximum(size, 1) / np.log(size + 10.0)
    phi[size <= 1] = phi[size > 1].max()
    phi = np.clip(phi, np.percentile(phi, 10), np.percentile(phi, 90))
    return temperature * phi / phi.mean()


def main():
    rs = np.random.RandomState(7)
    save("permutation.i32", [permutation(1000, 1234), permutation(1000, 3 + 1 + 4 * 15486557)], "i4")
    centre = rs.randn(60, D)
    which = rs.randint(0, 60, 3000)
    x = unit(centre[which] + 0.6 * rs.randn(3000, D)).astype("f4")
    label = np.where(rs.rand(3000) < 0.5, rs.randint(0, 20, 3000), which % 20).astype("i4")
    save("x.f32", x, "f4")
    save("label.i32", label, "i4")

    centroid, one, _ = kmeans(x, 50, 3)
    _, five, _ = kmeans(x, 50, 3, n_redo=5)
    _, subset, _ = kmeans(x, 50, 3, max_points=20)
    y = unit(rs.randn(60, D)[rs.randint(0, 60, 3000)] + 0.2 * rs.randn(3000, D)).astype("f4")
    save("y.f32", y, "f4")
    _, empty, splits = kmeans(y, 100, 5)
    _, empty_five, _ = kmeans(y, 100, 5, n_redo=5)
    save("kmeans.f64", [one, five, subset, empty, empty_five, splits], "f8")
    save("centroid.f32", centroid, "f4")

    points, below = x, None
    for level, k in enumerate((120, 40, 8)):
        raw, _, _ = kmeans(points, k, level, n_redo=5)
        index = faiss.IndexFlatL2(D)
        index.add(raw)
        assign = index.search(points, 1)[1][:, 0]
        save("level%d_density.f32" % level, density(points, raw, assign, k, 0.2), "f4")
        if level:
            save("level%d_parent.i32" % (level - 1), assign, "i4")
        below = assign if level == 0 else assign[below]
        save("level%d_assign.i32" % level, below, "i4")
        points = unit(raw).astype("f4")
        save("level%d_centroid.f32" % level, points, "f4")

    bank, query = unit(x[500:]), unit(x[:500])
    score = query @ bank.T
    order = np.argsort(-score, axis=1, kind="stable")[:, :50]
    top = np.take_along_axis(score, order, 1)
    save("knn_index.i64", order, "i8")
    save("knn_score.f64", top, "f8")
    accuracy = np.zeros((2, 4))
    for i, k in enumerate((5, 10, 20, 50)):
        votes = np.zeros((500, 20))
        np.add.at(votes, (np.arange(500)[:, None], label[500:][order[:, :k]]), np.exp(top[:, :k] / 0.07))
        ranked = np.argsort(-votes, axis=1, kind="stable")
        has_votes = votes[np.arange(500), label[:500]] > 0
        accuracy[0, i] = 100 * np.mean(ranked[:, 0] == label[:500])
        accuracy[1, i] = 100 * np.mean((ranked[:, :5] == label[:500, None]).any(1) & has_votes)
    save("knn_accuracy.f64", accuracy, "f8")
    print("faiss %s, numpy %s, Python %s" % (faiss.__version__, np.__version__, sys.version.split()[0]))
    print("objectives", one, five, subset, empty, empty_five, "splits", splits, "accuracy", accuracy)


main()
