#!/usr/bin/python3
"""Writes cases.txt: what torchvision and Pillow make of synthetic images, as CRC-32 of the bytes.

    /usr/bin/python3 validation/reference/augment/make_reference.py

The images are integer formulas of (kind, seed, size) that t430_augment.c repeats. Parameters are
listed here; those of composed views come from random.Random(20240229). Every case must be met bit
for bit, but for `moments`: means of RandomResizedCrop's own draws (torch.manual_seed(20240229)),
which are met statistically.
"""
import math
import os
import random
import sys
import zlib

import numpy as np
import PIL
import torch
import torchvision
import torchvision.transforms as T
import torchvision.transforms.functional as F
from PIL import Image, ImageFilter

NOISE, PHOTO, EXTREME, ALL_COLOURS = range(4)
BILINEAR, BICUBIC = T.InterpolationMode.BILINEAR, T.InterpolationMode.BICUBIC
lines = []


def mix(i):
    i = i.astype(np.uint32)
    i = (i ^ (i >> np.uint32(16))) * np.uint32(0x7FEB352D)
    i = (i ^ (i >> np.uint32(15))) * np.uint32(0x846CA68B)
    return i ^ (i >> np.uint32(16))


def image(kind, seed, channels, height, width):
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(channels), indexing='ij')
    index = (y * width + x) * channels + c
    noise = mix(index + 1000003 * seed).astype(np.int64)
    if kind == NOISE:
        a = noise & 255
    elif kind == PHOTO:  # ramps that fold, a board of hard edges, flat patches, weak noise
        t = (x * (3 + c) * 256 // width + y * (5 - c) * 256 // height + 37 * seed) % 512
        a = np.where(t > 255, 511 - t, t)
        a = np.where((x // 17 + y // 23) % 2 == 1, 255 - a, a)
        a = np.where((x // 31 + y // 29) % 5 == 0, 40 + 60 * c, a + (noise & 15) - 8)
        a = np.clip(a, 0, 255)
    elif kind == EXTREME:  # few values, so that channels are often equal
        a = np.array([0, 255, 1, 254, 127, 128, 64, 0])[noise & 7]
    else:
        pixel = y * width + x
        a = (pixel >> (8 * (2 - c))) & 255
    a = a.astype(np.uint8)
    return Image.fromarray(a if channels == 3 else a[:, :, 0])


def add(op, spec, params, out):
    crc = zlib.crc32(np.ascontiguousarray(np.asarray(out)).tobytes())
    words = [op] + [str(p) for p in spec] + [repr(p) for p in params] + ['%08x' % crc]
    lines.append(' '.join(words))


def add_resizes():
    # channels, height, width, top, left, crop height, crop width, out height, out width
    sizes = [
        (3, 375, 500, 0, 0, 375, 500, 224, 224), (3, 375, 500, 31, 77, 290, 387, 224, 224),
        (3, 375, 500, 100, 200, 130, 170, 224, 224), (3, 96, 80, 3, 5, 41, 57, 96, 96),
        (3, 50, 60, 0, 0, 50, 60, 7, 200), (3, 60, 50, 10, 20, 1, 1, 9, 5),
        (3, 64, 64, 1, 2, 32, 40, 32, 40), (3, 64, 64, 1, 2, 32, 40, 32, 33),
        (3, 64, 64, 1, 2, 32, 40, 31, 40), (3, 700, 600, 0, 0, 700, 600, 32, 32),
        (3, 480, 37, 0, 0, 480, 37, 20, 160), (3, 2, 900, 0, 0, 2, 900, 50, 6),
        (1, 28, 28, 0, 0, 28, 28, 28, 28), (1, 28, 28, 3, 5, 17, 22, 28, 28),
        (1, 28, 28, 10, 11, 13, 13, 28, 28), (1, 375, 500, 20, 30, 300, 333, 224, 224),
        (1, 375, 500, 0, 0, 375, 500, 20, 13), (1, 33, 65, 0, 1, 33, 64, 65, 33),
        (1, 28, 28, 0, 0, 28, 28, 224, 224),
    ]
    for channels, h, w, top, left, ch, cw, oh, ow in sizes:
        for kind in (NOISE, PHOTO, EXTREME):
            for mode in (BILINEAR, BICUBIC):
                img = image(kind, 1, channels, h, w)
                out = F.resized_crop(img, top, left, ch, cw, [oh, ow], mode)
                params = (top, left, ch, cw, oh, ow, int(mode == BICUBIC))
                add('resize', (channels, h, w, kind, 1), params, out)


def add_colours():
    for channels in (3, 1):
        for h, w in ((37, 53), (28, 28), (224, 224)):
            for kind in (NOISE, PHOTO, EXTREME):
                spec = (channels, h, w, kind, 2)
                img = image(kind, 2, channels, h, w)
                for f in (0.0, 0.2, 0.6, 0.7312345, 1.0, 1.0001, 1.4, 1.8, 3.7):
                    add('brightness', spec, (f,), F.adjust_brightness(img, f))
                    add('contrast', spec, (f,), F.adjust_contrast(img, f))
                    add('saturation', spec, (f,), F.adjust_saturation(img, f))
                for f in (-0.5, -0.1, -0.03, 0.0, 0.001, 0.0421, 0.1, 0.4999):
                    add('hue', spec, (f,), F.adjust_hue(img, f))
                add('grayscale', spec, (), F.to_grayscale(img, channels))
                add('flip', spec, (), F.hflip(img))
                for t in (128, 0, 77, 256):
                    add('solarize', spec, (t,), F.solarize(img, t))
    every = image(ALL_COLOURS, 0, 3, 4096, 4096)
    for f in (0.0, 0.0421, -0.1, 0.25):
        add('hue', (3, 4096, 4096, ALL_COLOURS, 0), (f,), F.adjust_hue(every, f))
    add('grayscale', (3, 4096, 4096, ALL_COLOURS, 0), (), F.to_grayscale(every, 3))
    for f in (0.6217, 1.3719):
        add('saturation', (3, 4096, 4096, ALL_COLOURS, 0), (f,), F.adjust_saturation(every, f))


def add_blurs():
    sizes = [(3, 61, 47), (1, 28, 28), (1, 5, 3), (1, 1, 1), (3, 224, 224), (1, 40, 130)]
    sigmas = [0.0, 0.1, 0.3, 0.57, 0.9, 1.0, 1.3771, 1.7, 1.999, 2.0, 2.7, 4.0, 5.5, 12.0, 60.0]
    for channels, h, w in sizes:
        for kind in (NOISE, PHOTO, EXTREME):
            img = image(kind, 3, channels, h, w)
            for sigma in sigmas:
                add('blur', (channels, h, w, kind, 3), (sigma,),
                    img.filter(ImageFilter.GaussianBlur(sigma)))


def add_evals():
    # channels, height, width, resize, crop
    cases = [
        (3, 375, 500, 256, 224), (3, 500, 375, 256, 224), (3, 333, 501, 256, 224),
        (3, 100, 90, 256, 224), (3, 64, 64, 0, 57), (3, 64, 81, 0, 0), (1, 28, 28, 0, 28),
        (1, 28, 28, 32, 28), (1, 28, 28, 0, 31), (3, 50, 41, 0, 60), (3, 50, 41, 0, 45),
        (3, 41, 90, 33, 0), (1, 27, 30, 0, 24), (3, 31, 30, 0, 24),
    ]
    for channels, h, w, resize, crop in cases:
        for mode in (BILINEAR, BICUBIC):
            img = image(PHOTO, 4, channels, h, w)
            out = img
            if resize:
                out = F.resize(out, resize, mode)
            if crop:
                out = F.center_crop(out, crop)
            params = (resize, crop, int(mode == BICUBIC), out.size[1], out.size[0])
            add('eval', (channels, h, w, PHOTO, 4), params, out)


def add_views():
    rng = random.Random(20240229)
    shapes = [(3, 375, 500, 224), (3, 240, 180, 96), (1, 28, 28, 28), (1, 90, 70, 64),
              (3, 32, 32, 32)]
    for n in range(100):
        channels, h, w, size = shapes[n % len(shapes)]
        kind = (PHOTO, NOISE)[n // 5 % 2]
        img = image(kind, n, channels, h, w)
        ch, cw = rng.randint(h // 3, h), rng.randint(w // 3, w)
        top, left = rng.randint(0, h - ch), rng.randint(0, w - cw)
        bicubic, flip, jitter, gray, blur, solar = (rng.random() < 0.5 for _ in range(6))
        order = rng.sample(range(4), 4)
        factor = [rng.uniform(0.6, 1.4) for _ in range(3)] + [rng.uniform(-0.1, 0.1)]
        sigma = rng.uniform(0.1, 2.0)
        out = F.resized_crop(img, top, left, ch, cw, [size, size], BICUBIC if bicubic else BILINEAR)
        if jitter:
            for i in order:
                out = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation,
                       F.adjust_hue)[i](out, factor[i])
        if gray:
            out = F.to_grayscale(out, channels)
        if blur:
            out = out.filter(ImageFilter.GaussianBlur(sigma))
        if solar:
            out = F.solarize(out, 128)
        if flip:
            out = F.hflip(out)
        params = (size, int(bicubic), int(flip), int(jitter), *order, *factor, int(gray),
                  int(blur), sigma, int(solar), top, left, ch, cw)
        add('view', (channels, h, w, kind, n), params, out)


def add_crops():
    for h, w in ((375, 500), (500, 333), (28, 28), (1, 1), (40, 3), (3, 50)):
        img = Image.new('L', (w, h))
        for ratio in (0.75, 0.8131, 1.0, 1.21, 4 / 3):
            for share in (0.08, 0.2, 0.25, 0.5, 0.731, 1.0):
                # With equal bounds only the position is drawn; the numbers are torch's, in float.
                s = torch.empty(1).uniform_(share, share).item()
                log_ratio = torch.log(torch.tensor((ratio, ratio)))
                r = torch.exp(torch.empty(1).uniform_(log_ratio[0], log_ratio[1])).item()
                _, _, ch, cw = T.RandomResizedCrop.get_params(img, (share, share), (ratio, ratio))
                want_w, want_h = round(math.sqrt(h * w * s * r)), round(math.sqrt(h * w * s / r))
                fits = 0 < want_w <= w and 0 < want_h <= h
                lines.append('crop %d %d %r %r %d %d %d' % (h, w, s, r, fits, ch, cw))
        for low, high in ((0.75, 4 / 3), (0.5, 0.6), (1.9, 2.5), (1.0, 1.0)):
            top, left, ch, cw = T.RandomResizedCrop.get_params(img, (4.0, 4.0), (low, high))
            lines.append('central %d %d %r %r %d %d %d %d' % (h, w, low, high, top, left, ch, cw))


def add_moments():
    torch.manual_seed(20240229)
    for h, w in ((300, 400), (28, 28), (100, 300)):
        img = Image.new('L', (w, h))
        boxes = [T.RandomResizedCrop.get_params(img, (0.2, 1.0), (0.75, 4 / 3))
                 for _ in range(20000)]
        top, left, ch, cw = np.array(boxes, dtype=float).T
        means = {'area': ch * cw / (h * w), 'log_ratio': np.log(cw / ch), 'top': top, 'left': left}
        for name, values in means.items():
            facts = (h, w, name, len(values), values.mean(), values.std())
            lines.append('moments %d %d %s %d %r %r' % facts)


def main():
    add_resizes()
    add_colours()
    add_blurs()
    add_evals()
    add_views()
    add_crops()
    add_moments()
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), 'cases.txt'), 'w') as f:
        versions = (sys.version.split()[0], PIL.__version__, torchvision.__version__,
                    torch.__version__, np.__version__)
        f.write('# By make_reference.py with Python %s, Pillow %s, torchvision %s, torch %s, '
                'NumPy %s\n' % versions)
        f.write('\n'.join(lines) + '\n')
    print(len(lines), 'cases')


if __name__ == '__main__':
    main()
