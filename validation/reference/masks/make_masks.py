#!/usr/bin/python3
"""Writes masks.txt: masks of every kind, made with NumPy from the descriptions in the papers and
the project's random numbers (counter.py), as CRC-32 and count.

    /usr/bin/python3 validation/reference/masks/make_masks.py

A line: kind, frames, rows, columns, unit (3), ratios, ratio_vars, n_masked, min_patches,
max_patches, min_aspect, max_aspect, exact, seed, epoch, index, view, count, CRC-32 of the bytes.
"""

import math
import os
import random
import sys
import zlib

import numpy as np

from counter import MASK, Stream

# (frames, rows, columns), unit, what differs from DEFAULTS
DEFAULTS = {
    "ratio": (0.75,),
    "ratio_var": (0.0,),
    "n_masked": 75,
    "min_patches": 0,
    "max_patches": 0,
    "min_aspect": 0.3,
    "max_aspect": 0,
    "exact": 1,
}
IMAGE = (1, 14, 14)
CASES = [
    ("random", IMAGE, (1, 1, 1), {}),  # MAE
    ("random", (1, 7, 7), (1, 1, 1), {"ratio": (0.6,)}),  # Hiera, its units
    ("random", (1, 56, 56), (1, 8, 8), {"ratio": (0.6,)}),  # the same over tokens
    ("random", (8, 7, 7), (1, 1, 1), {"ratio": (0.9,)}),  # Hiera, clips
    ("random", (8, 56, 56), (1, 8, 8), {"ratio": (0.9,)}),
    ("random", (1, 5, 3), (1, 1, 1), {"ratio": (1.0,)}),
    ("patch", (1, 48, 48), (1, 8, 8), {"ratio": (0.6,)}),  # SimMIM
    ("patch", (1, 10, 15), (1, 5, 3), {"ratio": (0.34,)}),
    ("block", IMAGE, (1, 1, 1), {}),  # CAE
    ("block", IMAGE, (1, 1, 1), {"exact": 0}),  # BEiT, which may end early
    ("block", IMAGE, (1, 1, 1), {"min_patches": 4, "max_patches": 20, "n_masked": 120}),
    ("block", (1, 9, 24), (1, 1, 1), {"n_masked": 100, "min_aspect": 0.5, "max_aspect": 1.5}),
    ("block_ibot", IMAGE, (1, 1, 1), {"ratio": (0.0, 0.3), "ratio_var": (0.0, 0.2)}),  # iBOT
    ("block_ibot", (1, 16, 12), (1, 1, 1), {"ratio": (0.45,)}),
    ("random_ibot", IMAGE, (1, 1, 1), {"ratio": (0.0, 0.3), "ratio_var": (0.0, 0.2)}),
]


def largest_but(stream, n, n_shown):
    noise = np.array([stream.uniform() for _ in range(n)])
    hidden = np.ones(n, np.uint8)
    hidden[np.argsort(noise, kind="stable")[:n_shown]] = 0
    return hidden


def blocks(stream, p, rows, columns, wanted, is_exact):
    mask, count = np.zeros((rows, columns), np.uint8), 0
    least = p["min_patches"] or max(min(rows, columns) // 3, 1) ** 2
    aspects = math.log(p["min_aspect"]), math.log(p["max_aspect"] or 1 / p["min_aspect"])
    while count < wanted:
        most, before = min(wanted - count, p["max_patches"] or rows * columns), count
        for _ in range(10):
            area = stream.between(least, most)
            aspect = math.exp(stream.between(*aspects))
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if not (1 <= h < rows and 1 <= w < columns):
                continue
            top, left = stream.below(rows - h + 1), stream.below(columns - w + 1)
            box = mask[top : top + h, left : left + w]
            new = h * w - int(box.sum())
            if 0 < new <= most:
                box[:] = 1
                count += new
                break
        if count == before and not is_exact:
            break
    return mask


def make(kind, grid, unit, p, seed, epoch, index, view):
    stream = Stream(seed, MASK, epoch, index, view)
    units = [g // u for g, u in zip(grid, unit)]
    n = math.prod(units)
    if kind in ("random", "patch"):
        shown = n - math.ceil(n * p["ratio"][0])
        if kind == "random":
            shown = int(n * (1 - p["ratio"][0]))
        hidden = largest_but(stream, n, shown).reshape(units)
        return np.kron(hidden, np.ones(unit, np.uint8))
    if kind == "block":
        return blocks(stream, p, grid[1], grid[2], p["n_masked"], p["exact"])
    i = stream.below(len(p["ratio"])) if len(p["ratio"]) > 1 else 0
    ratio, var = p["ratio"][i], p["ratio_var"][i]
    if var > 0:
        ratio = stream.between(ratio - var, ratio + var)
    wanted = ratio * n
    if kind == "random_ibot":
        return largest_but(stream, n, n - math.floor(wanted))
    return blocks(stream, p, grid[1], grid[2], wanted, False)


def main():
    draw = random.Random(20240229)
    folder = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(folder, "masks.txt"), "w") as file:
        version = sys.version.split()[0]
        file.write("# make_masks.py, Python %s, NumPy %s\n" % (version, np.__version__))
        for kind, grid, unit, differs in CASES:
            p = {**DEFAULTS, **differs}
            for i in range(12 if grid[1] > 40 else 60):
                # Seeds, epochs and samples beyond 32 bits, too.
                seed = draw.getrandbits(53 if i % 3 else 16)
                epoch, index = draw.randrange(400), draw.getrandbits(40 if i % 4 == 0 else 20)
                if i % 20 == 19:
                    epoch = draw.getrandbits(34)
                view = draw.randrange(12)
                mask = make(kind, grid, unit, p, seed, epoch, index, view)
                words = [kind, *grid, *unit]
                words += [",".join(map(repr, p["ratio"])), ",".join(map(repr, p["ratio_var"]))]
                words += [p[key] for key in list(DEFAULTS)[2:]]
                words += [seed, epoch, index, view, int(mask.sum())]
                words.append("%08x" % zlib.crc32(np.ascontiguousarray(mask).tobytes()))
                file.write(" ".join(map(str, words)) + "\n")


main()
