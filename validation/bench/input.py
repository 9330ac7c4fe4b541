#!/usr/bin/python3
# test: timeout=900 needs=python3-torch,python3-torchvision,mate-backgrounds,lomiri-wallpapers-16.04
"""Input on one core: photographs of 500x375 pixels to the views of MoCo v2 (2 x 224) and of DINO (2 x 224 + 10 x 96),
against torchvision's ImageFolder and transforms on Pillow in a DataLoader without workers, on the same core; raw images
of 32x32x3 as CIFAR has them, read and normalised, against the 300000 a second that are required; and two threads on two
cores against one. Required ratios: 3, 3, 1.9, 1.

The photographs are those of Debian's mate-backgrounds and lomiri-wallpapers-16.04 (free licences, see their copyright
files), resized to a half and a third, cut into tiles and saved with quality 92. Alternates and keeps the best of each.
HIRL_BENCH_ROUNDS (2), HIRL_BENCH_SECONDS (6) for each measurement.
"""
import glob
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

PROGRAM = os.environ.get("HIRL_X", "./hirl.x")
ROUNDS = int(os.environ.get("HIRL_BENCH_ROUNDS", "2"))
SECONDS = float(os.environ.get("HIRL_BENCH_SECONDS", "6"))
PHOTOS = "/usr/share/backgrounds/**/*.jpg"
CORES = sorted(os.sched_getaffinity(0))
BATCH = 16

DECK = """&run task = 'bench_input', method = 'mocov2' /
&data train = '%s/shards/train-*.h5', channels = 3, n_threads = 1 /
&views crop_size = 224 /
&optim batch = %d /
&bench_input seconds = %g /
"""
DINO = (
    "views%crop_size=224,224" + ",96" * 10,
    "views%crop_scale_min=0.25,0.25" + ",0.05" * 10,
    "views%crop_scale_max=1,1" + ",0.25" * 10,
    "views%interpolation=bicubic",
)


def make_photographs(folder):
    from PIL import Image

    n = 0
    for path in sorted(glob.glob(PHOTOS, recursive=True)):
        if "Elephants_" in path:  # the same picture in other sizes
            continue
        image = Image.open(path).convert("RGB")
        for part in (2, 3):
            width, height = image.width // part, image.height // part
            if width < 500 or height < 375:
                continue
            small = image.resize((width, height), Image.Resampling.BICUBIC)
            for y in range(0, height - 374, 375):
                for x in range(0, width - 499, 500):
                    name = "%s/c%d/%04d.jpg" % (folder, n % 10, n)
                    os.makedirs(os.path.dirname(name), exist_ok=True)
                    small.crop((x, y, x + 500, y + 375)).save(name, quality=92)
                    n += 1
    return n


def make_raw(folder, n=50000):
    """CIFAR-10's binary form: a label and 3 x 1024 bytes a record."""
    import numpy as np

    os.makedirs(folder)
    rng = np.random.default_rng(0)
    for i in range(5):
        records = rng.integers(0, 256, (n // 5, 3073), dtype=np.uint8)
        records[:, 0] %= 10
        records.tofile("%s/data_batch_%d.bin" % (folder, i + 1))


def pack(source, output):
    with open(output + ".nml", "w") as file:
        file.write(
            "&run task = 'pack' /\n&pack source = '%s', output = '%s', shuffle = .true. /\n"
            % (source, output)
        )
    subprocess.run([PROGRAM, output + ".nml"], check=True, stderr=subprocess.DEVNULL)


def ours(folder, *changes, n_cores=1):
    deck = folder + "/input.nml"
    with open(deck, "w") as file:
        file.write(DECK % (folder, BATCH, SECONDS))
    cores = ",".join(map(str, CORES[:n_cores]))
    result = subprocess.run(
        ["taskset", "-c", cores, PROGRAM, deck, *changes],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    rate = float(re.search(r"samples_per_s = ([\d.]+)", result.stdout).group(1))
    return rate, result.stdout.splitlines()


def peer(folder, recipe):
    """In a process of its own: samples a second."""
    import random

    import torch
    import torchvision
    from PIL import ImageFilter
    from torchvision import transforms as T

    torch.set_num_threads(1)

    class Blur:
        def __call__(self, image):
            return image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))

    def view(size, low, high, how):
        return T.Compose(
            [
                T.RandomResizedCrop(size, (low, high), interpolation=how),
                T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8),
                T.RandomGrayscale(0.2),
                T.RandomApply([Blur()], 0.5),
                T.RandomHorizontalFlip(),
                T.ToTensor(),
                T.Normalize((0.5,) * 3, (0.5,) * 3),
            ]
        )

    linear, cubic = T.InterpolationMode.BILINEAR, T.InterpolationMode.BICUBIC
    views = [view(224, 0.2, 1, linear)] * 2
    if recipe == "dino":
        views = [view(224, 0.25, 1, cubic)] * 2 + [view(96, 0.05, 0.25, cubic)] * 10
    data = torchvision.datasets.ImageFolder(folder, lambda image: [make(image) for make in views])
    loader = torch.utils.data.DataLoader(data, BATCH, shuffle=True, num_workers=0)
    n, start = 0, time.perf_counter()
    while True:
        for images, _ in loader:
            n += len(images[0])
            if time.perf_counter() - start > SECONDS:
                print(n / (time.perf_counter() - start))
                return


def run_peer(folder, recipe):
    result = subprocess.run(
        ["taskset", "-c", str(CORES[0]), sys.executable, __file__, "--peer", folder, recipe],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return float(result.stdout)


def compare(name, folder, recipe, changes):
    best, other, lines = 0.0, 0.0, []
    for _ in range(ROUNDS):
        rate, text = ours(folder, *changes)
        best, lines = max(best, rate), text
        other = max(other, run_peer(folder + "/photos", recipe))
    print("\n".join(lines[-2:]))
    print(
        "bench: %s ours = %.1f peer = %.1f ratio = %.2f unit = samples/s"
        % (name, best, other, best / other)
    )


def main():
    if sys.argv[1:2] == ["--peer"]:
        return peer(*sys.argv[2:4])
    if len(glob.glob(PHOTOS, recursive=True)) < 20:
        print("skip: no photographs (packages mate-backgrounds, lomiri-wallpapers-16.04)")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as folder:
        n = make_photographs(folder + "/photos")
        print("%d photographs" % n)
        pack(folder + "/photos", folder + "/shards")
        compare("input_mocov2", folder, "moco", ())
        compare("input_dino", folder, "dino", DINO)
        if len(CORES) > 1:
            # What a core does varies by a tenth from one moment to the next: in turn, and the middle one.
            pairs = [
                (ours(folder)[0], ours(folder, "data%n_threads=2", n_cores=2)[0])
                for _ in range(2 * ROUNDS + 1)
            ]
            one, two = (statistics.median(rates) for rates in zip(*pairs))
            print(
                "bench: input_2_threads ours = %.1f peer = %.1f ratio = %.2f unit = samples/s"
                % (two, one, two / one)
            )
        make_raw(folder + "/raw")
        pack(folder + "/raw", folder + "/raw-shards")
        changes = (
            "data%%train='%s/raw-shards/train-*.h5'" % folder,
            "views%eval_resize=0",
            "views%eval_crop=0",
            "bench_input%transform=eval",
        )
        # The batches of the second size, four of which are under way, are larger than a core's cache.
        for batch in (64, 256):
            best = max(ours(folder, *changes, "optim%%batch=%d" % batch)[0] for _ in range(ROUNDS))
            print(
                "bench: input_raw_%d ours = %.0f peer = 300000 ratio = %.2f unit = samples/s"
                % (batch, best, best / 300000)
            )


if __name__ == "__main__":
    main()
