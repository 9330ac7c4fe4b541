#!/usr/bin/python3
"""Writes drop.txt: which elements dropout keeps, and which samples drop path, from their
definition and the project's random numbers (counter.py).

    /usr/bin/python3 validation/reference/masks/make_drop.py

A line: kind, p (of single precision), seed, step, site, samples, elements of a sample, indices,
how many are kept, CRC-32 of a byte (0 or 1) for each element or sample.
"""

import os
import random
import sys
import zlib
from fractions import Fraction

import numpy as np

from counter import DROPOUT, Stream

SIZES = ((1, 1), (3, 5), (4, 64), (2, 4099), (1, 9000), (33, 24), (7, 131), (60, 3))


def main():
    draw = random.Random(20240305)
    folder = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(folder, "drop.txt"), "w") as file:
        version = sys.version.split()[0]
        file.write("# make_drop.py, Python %s, NumPy %s\n" % (version, np.__version__))
        for i in range(32):
            n, size = SIZES[i % 8]
            p = np.float32(draw.choice((0.1, 0.2, 0.3, 0.5, 1e-4, draw.random(), 1 - 2.0**-24)))
            seed = draw.getrandbits(53 if i % 3 else 16)
            step = draw.getrandbits(34 if i % 5 == 4 else 20)
            site = draw.getrandbits(32 if i % 7 == 6 else 8)
            index = [draw.getrandbits(40 if i % 4 == 0 else 20) for _ in range(n)]
            for kind in ("dropout", "drop_path"):
                kept = bytearray()
                least = Fraction(float(p)) * 2**32
                for sample in index:
                    stream = Stream(seed, DROPOUT, step, sample, site)
                    for _ in range(size if kind == "dropout" else 1):
                        kept.append(stream.u32() >= least)
                words = [kind, "%.9g" % p, seed, step, site, n, size, *index]
                words += [sum(kept), "%08x" % zlib.crc32(bytes(kept))]
                file.write(" ".join(map(str, words)) + "\n")


main()
