#!/usr/bin/env python3
"""Makes the WebP files under webp/ and what Pillow decodes them to (webp/expected.bin: RGB, one after the other, in the order of
webp/expected.txt: name, height, width).

Run it in this folder. The stored files were made with Python 3.11, NumPy 1.24.2, Pillow 9.4.0, libwebp 1.2.4 and seed 20261122.
The animation is there to be refused.
"""
import numpy as np
from PIL import Image

rng = np.random.default_rng(20261122)


def picture(height, width, channels):
    y, x = np.mgrid[0:height, 0:width]
    planes = [128 + 90 * np.sin(0.1 * (c + 1) * x + c) * np.cos(0.08 * (c + 2) * y) for c in range(channels)]
    planes = np.stack(planes, -1) + rng.normal(0, 5, (height, width, channels))
    return np.clip(planes, 0, 255).astype(np.uint8)


def main():
    kinds = {
        "lossy.webp": (picture(41, 57, 3), dict(quality=80)),
        "lossless.webp": (picture(23, 31, 3), dict(lossless=True)),
        "lossy-alpha.webp": (picture(30, 27, 4), dict(quality=60)),
        "lossless-alpha.webp": (picture(19, 22, 4), dict(lossless=True, exact=True)),
        "one-pixel.webp": (picture(1, 1, 3), dict(quality=90)),
    }
    with open("webp/expected.txt", "w") as names, open("webp/expected.bin", "wb") as pixels:
        for name, (array, options) in kinds.items():
            Image.fromarray(array).save("webp/" + name, **options)
            image = Image.open("webp/" + name).convert("RGB")
            names.write("%s %d %d\n" % (name, image.height, image.width))
            pixels.write(np.asarray(image).tobytes())
    frames = [Image.fromarray(picture(16, 16, 3)) for _ in range(3)]
    frames[0].save("webp/animation.webp", save_all=True, append_images=frames[1:], duration=50)


main()
