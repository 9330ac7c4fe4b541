#!/usr/bin/env python3
"""Augmented views on a GPU: gpu_views.py [--emulated].

Two views of 224 x 224 of each of 256 images of 375 x 500, with MoCo v2's draws, then with
RandAugment and random erasing: on the device, and by a thread of the loader's (without reading and
decoding, which stays with the threads). What goes to the device is compared with the views
themselves as f32.

Prints `bench:` lines. --emulated: small, on the emulated device, and no times.
"""
import os
import subprocess
import sys

N, HEIGHT, WIDTH, SIZE, ROUNDS = 256, 375, 500, 224, 10
SMALL = 8, 60, 90, 40, 1


RECIPES = {"moco": "MoCo v2's", "rand": "RandAugment and erasing"}


def measure(program, recipe, is_emulated):
    sizes = SMALL if is_emulated else (N, HEIGHT, WIDTH, SIZE, ROUNDS)
    command = [program, "cuda"] + [str(s) for s in sizes] + [recipe]
    text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found = dict(line.split(" = ", 1) for line in text.splitlines() if " = " in line)
    what = RECIPES[recipe]
    print(
        "bench: views on %s: %s, bits of the loader's: %s"
        % (found["device"], what, found["same_bits"])
    )
    if not is_emulated:
        upload, views, thread = (
            float(found[w + "_seconds"]) for w in ("upload", "views", "thread")
        )
        as_bytes, as_f32 = N * HEIGHT * WIDTH * 3, 2 * N * SIZE * SIZE * 3 * 4
        print(
            "bench: %s, %d views of %d x %d from %d x %d: %.2f ms on the device, %.0f ms on one "
            "thread: ratio %.0f"
            % (what, 2 * N, SIZE, SIZE, HEIGHT, WIDTH, 1e3 * views, 1e3 * thread, thread / views)
        )
        print(
            "bench: their images to the device: %.2f ms, %.1f GB/s; %.2f of the bytes of the views"
            % (1e3 * upload, 1e-9 * as_bytes / upload, as_bytes / as_f32)
        )
    return found["same_bits"] == "yes"


def main():
    program = os.environ.get("HIRL_BUILD", "build/release-cuda") + "/bench/gpu_views"
    if not os.path.exists(program):
        print("skip: no %s (make CUDA=1 benches)" % program)
        sys.exit(77)
    is_same = [measure(program, recipe, "--emulated" in sys.argv[1:]) for recipe in RECIPES]
    return not all(is_same)


if __name__ == "__main__":
    sys.exit(main())
