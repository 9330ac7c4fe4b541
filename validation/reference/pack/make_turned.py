#!/usr/bin/env python3
"""Makes JPEG files with EXIF orientations under turned/ and how Pillow shows them (turned.txt, .bin).

Run it in this folder. The stored files were made with Python 3.11, NumPy 1.24.2, Pillow 9.4.0,
libjpeg-turbo 2.1.5 and seed 20240229.

A line of turned.txt: file, height, width, channels of ImageOps.exif_transpose, offset of its pixels
(RGB or L) in turned.bin. whole_*: sides are multiples of the blocks of the coding, so that they can
be turned without loss; part_*: they are not.
"""
import os
import struct
import sys

import numpy as np
from PIL import Image, ImageOps

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import make_images as m  # noqa: E402


def exif(orientation, order='<', kind=3, before=2):
    """EXIF data with `before` other tags ahead of the orientation, a SHORT (3) or LONG (4)."""
    tags = [struct.pack(order + 'HHII', 0x0100 + i, 4, 1, 7) for i in range(before)]
    value = struct.pack(order + 'HH', orientation, 0) if kind == 3 else struct.pack(order + 'I', orientation)
    tags.append(struct.pack(order + 'HHI', 0x0112, kind, 1) + value)
    head = (b'II' if order == '<' else b'MM') + struct.pack(order + 'HI', 42, 8)
    return b'Exif\0\0' + head + struct.pack(order + 'H', len(tags)) + b''.join(tags) + b'\0' * 4


def files():
    whole, part = m.rgb(32, 48), m.rgb(37, 41)
    gray = Image.fromarray(m.picture(24, 40, 1))
    cases = {}
    for o in range(1, 9):
        cases[f'whole_{o}.jpg'] = (whole, dict(quality=92), exif(o))
        cases[f'part_{o}.jpg'] = (part, dict(quality=92), exif(o))
    cases['whole_gray.jpg'] = (gray, dict(quality=90), exif(6, '>'))
    cases['whole_444.jpg'] = (m.rgb(40, 24), dict(quality=90, subsampling=0), exif(8, '>', 4))
    cases['whole_progressive.jpg'] = (whole, dict(quality=85, progressive=True), exif(5, '<', 4, 0))
    cases['part_gray.jpg'] = (Image.fromarray(m.picture(23, 31, 1)), dict(quality=90), exif(7))
    return {name: m.saved(image, 'JPEG', exif=tag, **how) for name, (image, how, tag) in cases.items()}


def main():
    blob, lines = b'', []
    os.makedirs('turned', exist_ok=True)
    for name, data in files().items():
        with open('turned/' + name, 'wb') as f:
            f.write(data)
        pixels = np.array(ImageOps.exif_transpose(Image.open('turned/' + name)))
        channels = 1 if pixels.ndim == 2 else 3
        lines.append(f'{name} {pixels.shape[0]} {pixels.shape[1]} {channels} {len(blob)}\n')
        blob += pixels.tobytes()
    with open('turned.bin', 'wb') as f:
        f.write(blob)
    with open('turned.txt', 'w') as f:
        f.writelines(sorted(lines))


if __name__ == '__main__':
    main()
