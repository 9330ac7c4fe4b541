#!/usr/bin/python3
"""Writes mix.txt: batches mixed with NumPy from the descriptions in the papers and the project's
random numbers (counter.py).

    /usr/bin/python3 validation/reference/masks/make_mix.py

A case: `case` mixup cutmix prob switch_prob smoothing group seed epoch first n height width
channels classes; `label` n numbers; for each of its groups `draw` is_cutmix lambda top left height
width; `images` and `target`, all values in row-major order. The images before are a formula
(`image`) that t471_mix.c repeats.
"""

import math
import os
import random
import sys

import numpy as np

from counter import MIX, Stream


def image(i):
    """Pseudo-random numbers in [-2, 2) with 16 bits."""
    i = i.astype(np.uint32)
    i = (i ^ (i >> np.uint32(16))) * np.uint32(0x7FEB352D)
    i = (i ^ (i >> np.uint32(15))) * np.uint32(0x846CA68B)
    i = i ^ (i >> np.uint32(16))
    return ((i & np.uint32(0xFFFF)).astype(np.float32) / np.float32(16384)) - np.float32(2)


def log_gamma(stream, shape):
    """Marsaglia and Tsang's method; shapes below 1 by the power of a uniform number."""
    boost = 0.0
    if shape < 1:
        boost = math.log(1 - stream.uniform()) / shape
        shape += 1
    d = shape - 1 / 3
    c = 1 / math.sqrt(9 * d)
    while True:
        x = stream.normal()
        v = 1 + c * x
        if v <= 0:
            continue
        v, u = v * v * v, 1 - stream.uniform()
        if math.log(u) < 0.5 * x * x + d * (1 - v + math.log(v)):
            return math.log(d * v) + boost


def beta(stream, alpha):
    a, b = log_gamma(stream, alpha), log_gamma(stream, alpha)
    return 1 / (1 + math.exp(b - a))


def draw(cfg, seed, epoch, group, height, width):
    mixup, cutmix, prob, switch_prob = cfg[:4]
    stream = Stream(seed, MIX, epoch, group, 0)
    nothing = (0, 1.0, 0, 0, 0, 0)
    if mixup <= 0 and cutmix <= 0 or stream.uniform() >= prob:
        return nothing
    is_cutmix = cutmix > 0
    if mixup > 0 and cutmix > 0:
        is_cutmix = stream.uniform() < switch_prob
    share = beta(stream, cutmix if is_cutmix else mixup)
    if not is_cutmix:
        return (0, share, 0, 0, 0, 0)
    side = math.sqrt(1 - share)
    cut_h, cut_w = int(height * side), int(width * side)
    y, x = stream.below(height), stream.below(width)
    y1, y2 = np.clip([y - cut_h // 2, y + cut_h // 2], 0, height)
    x1, x2 = np.clip([x - cut_w // 2, x + cut_w // 2], 0, width)
    share = 1 - (y2 - y1) * (x2 - x1) / (height * width)
    return (1, float(share), int(y1), int(x1), int(y2 - y1), int(x2 - x1))


def main():
    numbers = random.Random(20240229)
    folder = os.path.dirname(os.path.abspath(__file__))
    configs = [
        (0.8, 1.0, 1.0, 0.5, 0.1, 4),
        (0.8, 0.0, 1.0, 0.5, 0.0, 2),
        (0.0, 1.0, 1.0, 0.5, 0.1, 2),
        (0.3, 0.2, 0.6, 0.7, 0.1, 6),
        (0.0, 0.0, 1.0, 0.5, 0.1, 128),
        (3.0, 2.5, 0.9, 0.3, 0.05, 2),
    ]
    with open(os.path.join(folder, "mix.txt"), "w") as file:
        version = sys.version.split()[0]
        file.write("# make_mix.py, Python %s, NumPy %s\n" % (version, np.__version__))
        for i in range(18):
            cfg = configs[i % len(configs)]
            seed, epoch = numbers.getrandbits(53), numbers.randrange(100)
            first = 2 * numbers.randrange(1 << (40 if i % 4 == 3 else 10))
            n, h, w = 2 * numbers.randrange(2, 5), numbers.randrange(3, 9), numbers.randrange(3, 9)
            channels, classes = numbers.choice((1, 3)), numbers.randrange(2, 7)
            label = np.array([numbers.randrange(classes) for _ in range(n)])
            x = image(np.arange(n * h * w * channels)).reshape(n, h, w, channels)
            smoothing, group = cfg[4], cfg[5]
            off = smoothing / classes
            hot = np.full((n, classes), off)
            hot[np.arange(n), label] = 1 - smoothing + off
            partner = np.arange(n) ^ 1  # `first` is even
            mixed, target, draws = x.copy(), np.zeros((n, classes)), {}
            for j in range(n):
                g = (first + j) // group
                if g not in draws:
                    draws[g] = draw(cfg, seed, epoch, g, h, w)
                is_cutmix, share, top, left, height, width = draws[g]
                if is_cutmix:
                    rows, columns = slice(top, top + height), slice(left, left + width)
                    mixed[j, rows, columns] = x[partner[j], rows, columns]
                else:
                    mixed[j] = x[j] * np.float32(share) + x[partner[j]] * np.float32(1 - share)
                target[j] = hot[j] * share + hot[partner[j]] * (1 - share)
            words = ["case", *map(repr, cfg), seed, epoch, first, n, h, w, channels, classes]
            file.write(" ".join(map(str, words)) + "\n")
            file.write("label " + " ".join(map(str, label)) + "\n")
            for values in draws.values():
                file.write("draw " + " ".join(map(repr, values)) + "\n")
            for name, values in (("images", mixed), ("target", target)):
                words = " ".join("%.9g" % value for value in values.ravel())
                file.write(name + " " + words + "\n")


main()
