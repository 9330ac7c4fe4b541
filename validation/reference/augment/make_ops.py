#!/usr/bin/python3
"""Writes ops.txt: operations beyond those of make_reference.py, as CRC-32 of what Pillow and
torchvision make of the same synthetic images.

    /usr/bin/python3 validation/reference/augment/make_ops.py

RandAugment's operations are written here with Pillow from their definition: level / 10 times the
largest strength (30 degrees, shear 0.3, 0.45 of the side, enhancement 1 -+ 0.9 but at least 0.1,
4 bits, 256 levels, 110 added below 128). Random parameters come from random.Random(20240301).
t432_image_ops.c repeats all of it bit for bit; `lighting` and `erase` are met as it says there.
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
import torchvision.transforms.functional as F
from PIL import Image, ImageEnhance, ImageOps

import make_reference
from make_reference import EXTREME, NOISE, PHOTO, add, image, lines

FILTERS = {0: Image.BILINEAR, 1: Image.BICUBIC, 3: Image.NEAREST}
FILLS = {3: (124, 116, 104), 1: (124,)}
rng = random.Random(20240301)


def fill_of(channels):
    return FILLS[channels] if channels == 3 else FILLS[1][0]


def solarize_add(img, amount, threshold=128):
    table = [min(255, i + amount) if i < threshold else i for i in range(256)]
    return img.point(table * len(img.getbands()))


def affine(img, matrix, mode, fill):
    return img.transform(img.size, Image.AFFINE, matrix, mode, fillcolor=fill)


def add_values():
    for channels in (3, 1):
        for h, w in ((37, 53), (28, 28), (224, 224), (2, 5), (1, 1), (3, 3)):
            for kind in (NOISE, PHOTO, EXTREME):
                spec = (channels, h, w, kind, 5)
                img = image(kind, 5, channels, h, w)
                for bits in range(9):
                    out = img if bits == 8 else ImageOps.posterize(img, bits)
                    add('posterize', spec, (bits,), out)
                add('invert', spec, (), ImageOps.invert(img))
                add('equalize', spec, (), ImageOps.equalize(img))
                add('autocontrast', spec, (), ImageOps.autocontrast(img))
                for amount in (0, 37, 110, 255):
                    add('solarize_add', spec, (amount,), solarize_add(img, amount))
                for factor in (0.0, 0.1, 0.4231, 1.0, 1.3, 1.9, 4.5):
                    add('sharpness', spec, (factor,), ImageEnhance.Sharpness(img).enhance(factor))
    # Narrow ranges and few pixels: where tables saturate, or nothing can be stretched.
    for h, w in ((20, 20), (16, 16), (23, 31)):
        for low, high in ((100, 140), (0, 3), (200, 255), (77, 77)):
            base = np.asarray(image(NOISE, 6, 3, h, w)).astype(int)
            img = Image.fromarray((low + base * (high - low) // 255).astype(np.uint8))
            spec = (3, h, w, NOISE, 6)
            add('equalize', spec, (low, high), ImageOps.equalize(img))
            add('autocontrast', spec, (low, high), ImageOps.autocontrast(img))


def add_warps():
    angles = [0.0, 2.0, -1.37, 30.0, -29.99, 45.0, 90.0, 180.0, 270.0, 123.456, -360.0, 1e-9]
    for channels, h, w in ((3, 61, 47), (1, 28, 28), (3, 224, 224), (3, 1, 9), (1, 33, 20)):
        for kind in (PHOTO, NOISE):
            img = image(kind, 7, channels, h, w)
            spec = (channels, h, w, kind, 7)
            fill = fill_of(channels)
            for code, mode in FILTERS.items():
                for angle in angles:
                    out = img.rotate(angle, mode, fillcolor=fill)
                    add('rotate', spec, (angle, code), out)
                matrices = [
                    (1, 0.3, 0, 0, 1, 0), (1, -0.27, 0, 0, 1, 0), (1, 0, 0, 0.3, 1, 0),
                    (1, 0, 0, -0.113, 1, 0), (1, 0, 0.45 * w, 0, 1, 0), (1, 0, -7.25, 0, 1, 0),
                    (1, 0, 0, 0, 1, -0.45 * h), (1, 0, 0, 0, 1, 3.5), (1, 0, 1000.0, 0, 1, 0),
                    (0.5, 0, 3, 0, 1.7, -2), (0.9, 0.2, 3.3, -0.3, 1.1, 4.4),
                ]
                for m in matrices:
                    add('affine', spec, (*map(float, m), code), affine(img, m, mode, fill))


def add_lanczos():
    sizes = [
        (3, 375, 500, 0, 0, 375, 500, 112, 112), (3, 375, 500, 31, 77, 290, 387, 112, 112),
        (3, 96, 80, 3, 5, 41, 57, 96, 96), (3, 60, 50, 10, 20, 1, 1, 9, 5),
        (1, 28, 28, 3, 5, 17, 22, 28, 28), (3, 700, 600, 0, 0, 700, 600, 32, 32),
        (1, 375, 500, 20, 30, 300, 333, 224, 224), (3, 50, 60, 0, 0, 50, 60, 7, 200),
    ]
    for channels, h, w, top, left, ch, cw, oh, ow in sizes:
        for kind in (NOISE, PHOTO, EXTREME):
            img = image(kind, 1, channels, h, w)
            box = img.crop((left, top, left + cw, top + ch))
            params = (top, left, ch, cw, oh, ow)
            add('lanczos', (channels, h, w, kind, 1), params, box.resize((ow, oh), Image.LANCZOS))


RAND_OPS = ['AutoContrast', 'Equalize', 'Invert', 'Rotate', 'Posterize', 'Solarize', 'SolarizeAdd',
            'Color', 'Contrast', 'Brightness', 'Sharpness', 'ShearX', 'ShearY', 'TranslateX',
            'TranslateY']


def rand_op(img, op, level, negative, mode, fill):
    share = level / 10
    sign = -1 if negative else 1
    name = RAND_OPS[op]
    if name in ('AutoContrast', 'Equalize', 'Invert'):
        return getattr(ImageOps, name.lower())(img)
    if name == 'Rotate':
        return img.rotate(sign * (share * 30), mode, fillcolor=fill)
    if name == 'Posterize':
        return ImageOps.posterize(img, 4 - int(share * 4))
    if name == 'Solarize':
        return ImageOps.solarize(img, 256 - int(share * 256))
    if name == 'SolarizeAdd':
        return solarize_add(img, int(share * 110))
    if name in ('Color', 'Contrast', 'Brightness', 'Sharpness'):
        factor = max(0.1, 1 + sign * (share * 0.9))
        return getattr(ImageEnhance, name)(img).enhance(factor)
    if name == 'ShearX':
        return affine(img, (1, sign * (share * 0.3), 0, 0, 1, 0), mode, fill)
    if name == 'ShearY':
        return affine(img, (1, 0, 0, sign * (share * 0.3), 1, 0), mode, fill)
    if name == 'TranslateX':
        return affine(img, (1, 0, sign * (share * 0.45) * img.size[0], 0, 1, 0), mode, fill)
    return affine(img, (1, 0, 0, 0, 1, sign * (share * 0.45) * img.size[1]), mode, fill)


def add_rand_ops():
    for channels, h, w, kind in ((3, 64, 64, PHOTO), (1, 28, 28, PHOTO), (3, 224, 224, NOISE)):
        img = image(kind, 8, channels, h, w)
        for op in range(len(RAND_OPS)):
            for level in (0.0, 4.37, 9.0, 9.61, 10.0):
                for negative in (0, 1):
                    code = rng.choice((0, 1))
                    out = rand_op(img, op, level, negative, FILTERS[code], fill_of(channels))
                    add('rand', (channels, h, w, kind, 8), (op, level, negative, code), out)


def add_windows():
    # channels, height, width, resize (0: none), padding, size
    cases = [(3, 32, 32, 0, 4, 32), (1, 28, 28, 0, 2, 28), (3, 375, 500, 292, 0, 255),
             (3, 500, 375, 64, 7, 61), (3, 90, 41, 40, 10, 50)]
    for channels, h, w, resize, padding, size in cases:
        for n in range(8):
            img = image(PHOTO, 9 + n, channels, h, w)
            out = F.resize(img, resize) if resize else img
            rw, rh = out.size
            y = rng.randint(-padding, rh + padding - size)
            x = rng.randint(-padding, rw + padding - size)
            flip = n % 2
            out = F.pad(out, padding)
            out = F.crop(out, y + padding, x + padding, size, size)
            out = F.hflip(out) if flip else out
            add('window', (channels, h, w, PHOTO, 9 + n), (resize, size, y, x, flip), out)
    for channels, h, w, resize, size in ((3, 375, 500, 256, 224), (3, 20, 33, 0, 32),
                                         (1, 31, 28, 0, 29), (3, 64, 50, 33, 33)):
        img = image(PHOTO, 20, channels, h, w)
        out = F.resize(img, resize) if resize else img
        out = F.center_crop(out, size)
        add('center', (channels, h, w, PHOTO, 20), (resize, size), out)


def add_views():
    """A crop, then every operation that may follow in the order of &views."""
    for n in range(60):
        channels, h, w, size = ((3, 240, 180, 96), (1, 90, 70, 64), (3, 64, 81, 45))[n % 3]
        kind = (PHOTO, NOISE)[n // 3 % 2]
        img = image(kind, n, channels, h, w)
        ch, cw = rng.randint(h // 3, h), rng.randint(w // 3, w)
        top, left = rng.randint(0, h - ch), rng.randint(0, w - cw)
        code = rng.choice((0, 1))
        flip, gray, first, jit, post, auto, equal, solar = (int(rng.random() < 0.4)
                                                            for _ in range(8))
        degrees = rng.uniform(-20, 20) if rng.random() < 0.5 else 0.0
        draws = [(rng.randrange(15), rng.uniform(0, 10), int(rng.random() < 0.5))
                 for _ in range(2 * (rng.random() < 0.6))]
        contrast, saturation = rng.uniform(0.6, 1.4), rng.uniform(0.6, 1.4)
        out = img.crop((left, top, left + cw, top + ch)).resize((size, size), FILTERS[code])
        out = F.hflip(out) if flip else out
        for op, level, negative in draws:
            out = rand_op(out, op, level, negative, FILTERS[code], fill_of(channels))
        if degrees:
            out = F.rotate(out, degrees)
        if gray and first:
            out = F.to_grayscale(out, channels)
        if jit:
            out = F.adjust_contrast(out, contrast)
            out = F.adjust_saturation(out, saturation)
        if gray:
            out = F.to_grayscale(out, channels)
        out = F.posterize(out, 3) if post else out
        out = F.autocontrast(out) if auto else out
        out = F.equalize(out) if equal else out
        out = F.solarize(out, 128) if solar else out
        params = [size, code, flip, gray, first, jit, contrast, saturation, post, auto, equal,
                  solar, degrees, top, left, ch, cw, len(draws)]
        for draw in draws:
            params += draw
        add('view', (channels, h, w, kind, n), params, out)


def add_lighting():
    """(amounts of the components) -> what is added to red, green and blue in [0, 1]."""
    value = torch.tensor([0.2175, 0.0188, 0.0045])
    vector = torch.tensor([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140],
                           [-0.5836, -0.6948, 0.4203]])
    for _ in range(5):
        alpha = torch.tensor([rng.gauss(0, 0.1) for _ in range(3)])
        added = (vector * alpha.view(1, 3) * value.view(1, 3)).sum(1)
        lines.append('lighting ' + ' '.join(repr(float(x)) for x in (*alpha, *added)))


def add_erase_moments():
    """Means and deviations of the rectangle that random erasing draws, ten tries each."""
    for side in (224, 32):
        rows = []
        for _ in range(20000):
            for _ in range(10):
                area = rng.uniform(0.02, 1 / 3) * side * side
                ratio = math.exp(rng.uniform(math.log(0.3), math.log(1 / 0.3)))
                h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
                if w < side and h < side:
                    rows.append((h * w, math.log(h / w), rng.randint(0, side - h),
                                 rng.randint(0, side - w)))
                    break
        for name, values in zip(('area', 'log_ratio', 'top', 'left'), np.array(rows, float).T):
            facts = (side, name, len(values), values.mean(), values.std())
            lines.append('erase %d %s %d %r %r' % facts)


def add_rotations():
    """np.rot90 of f32 [size, size, channels] with values 0, 1, 2, ...: size, channels, CRC."""
    for size, channels in ((1, 3), (5, 1), (8, 3), (33, 3)):
        view = np.arange(size * size * channels, dtype=np.float32).reshape(size, size, channels)
        turned = np.stack([np.rot90(view, k) for k in range(4)])
        crc = zlib.crc32(np.ascontiguousarray(turned).tobytes())
        lines.append('rotations %d %d %08x' % (size, channels, crc))


def main():
    for part in (add_values, add_warps, add_lanczos, add_rand_ops, add_windows, add_views,
                 add_lighting, add_erase_moments, add_rotations):
        part()
    folder = os.path.dirname(os.path.abspath(make_reference.__file__))
    with open(os.path.join(folder, 'ops.txt'), 'w') as f:
        versions = (sys.version.split()[0], PIL.__version__, torchvision.__version__,
                    torch.__version__, np.__version__)
        f.write('# By make_ops.py with Python %s, Pillow %s, torchvision %s, torch %s, NumPy %s\n'
                % versions)
        f.write('\n'.join(lines) + '\n')
    print(len(lines), 'cases')


if __name__ == '__main__':
    main()
