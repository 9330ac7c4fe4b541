#!/usr/bin/python3
"""Writes clips.txt: frames of clips, from their description and the project's random numbers
(counter.py).

    /usr/bin/python3 validation/reference/masks/make_clips.py

A line: `draw` n n_frames stride loops seed epoch index repeat : frames, or `place` n n_frames
stride loops k n_clips : frames.
"""

import os
import random
import sys

from counter import CLIP, Stream


def frames(n, n_frames, stride, loops, start):
    wanted = range(start, start + n_frames * stride, stride)
    return [f % n if loops else min(f, n - 1) for f in wanted]


def main():
    numbers = random.Random(20240229)
    folder = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(folder, "clips.txt"), "w") as file:
        file.write("# make_clips.py, Python %s\n" % sys.version.split()[0])
        for i in range(120):
            n_frames, stride = numbers.choice(((16, 4), (8, 8), (1, 1), (4, 3)))
            span = (n_frames - 1) * stride + 1
            n = numbers.choice((1, span - 1 or 1, span, span + 1, 300, 7, 100000))
            loops, index = numbers.randrange(2), numbers.getrandbits(36)
            seed, epoch = numbers.getrandbits(53), numbers.randrange(99)
            repeat = numbers.randrange(4)
            start = Stream(seed, CLIP, epoch, index, repeat).below(max(n - span, 0) + 1)
            words = ["draw", n, n_frames, stride, loops, seed, epoch, index, repeat, ":"]
            words += frames(n, n_frames, stride, loops, start)
            file.write(" ".join(map(str, words)) + "\n")
            n_clips = numbers.choice((1, 2, 5, 10))
            k = numbers.randrange(n_clips)
            start = max(n - span, 0) * (k if n_clips > 1 else 1) // (n_clips - 1 or 2)
            words = ["place", n, n_frames, stride, loops, k, n_clips, ":"]
            words += frames(n, n_frames, stride, loops, start)
            file.write(" ".join(map(str, words)) + "\n")


main()
