#!/usr/bin/env python3
"""Makes the PNG and JPEG files under images/ and what Pillow decodes them to (expected.txt, expected.bin).

Run it in this folder. The stored files were made with Python 3.11, NumPy 1.24.2, Pillow 9.4.0, libjpeg-turbo 2.1.5 and
seed 20240229. PNG kinds that Pillow cannot write (interlaced, 16-bit colour, 2 and 4 bits) are encoded here with zlib.

A line of expected.txt: path, height, width, channels as stored, offsets of the RGB and the L pixels in expected.bin.
RGB is Image.convert('RGB'); L is Image.convert('RGB').convert('L') for colour images, Image.convert('L') for grey ones.
One difference is intended: of 16-bit grey samples the upper byte counts (Pillow would clip values above 255).
"""
import io
import os
import struct
import zlib

import numpy as np
from PIL import Image

SEED = 20240229
rng = np.random.default_rng(SEED)


def picture(height, width, channels):
    """Smooth gradients with a sharp box and some noise, so that all parts of a codec have work."""
    y, x = np.mgrid[0:height, 0:width]
    planes = []
    for c in range(channels):
        plane = 128 + 90 * np.sin(0.11 * (c + 1) * x + 0.3 * c) * np.cos(0.07 * (c + 2) * y)
        plane[height // 4 : height // 2, width // 3 : width // 2] = 255 * (c % 2)
        planes.append(plane + rng.normal(0, 6, plane.shape))
    a = np.clip(np.stack(planes, -1), 0, 255).astype(np.uint8)
    return a[..., 0] if channels == 1 else a


def chunk(kind, data):
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))


def pack_rows(samples, depth):
    """Rows of a pass [h, w, c] with filter 0 (none) or 1 (sub) in turn; depth below 8 packs several samples a byte."""
    out = b''
    for y, row in enumerate(samples):
        flat = row.reshape(-1)
        if depth == 16:
            data = flat.astype('>u2').tobytes()
        elif depth == 8:
            data = flat.astype('u1').tobytes()
        else:
            bits = ((flat[:, None] >> np.arange(depth - 1, -1, -1)) & 1).astype('u1').reshape(-1)
            data = np.packbits(bits).tobytes()
        if y % 2 and depth >= 8:
            step = samples.shape[2] * depth // 8
            b = np.frombuffer(data, 'u1').astype(int)
            left = np.concatenate([np.zeros(step, int), b[:-step]])
            out += b'\1' + ((b - left) % 256).astype('u1').tobytes()
        else:
            out += b'\0' + data
    return out


ADAM7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]


def png(samples, color_type, depth, interlaced=False, extra=b''):
    """A PNG of integer samples [h, w, c]."""
    height, width, _ = samples.shape
    head = struct.pack('>IIBBBBB', width, height, depth, color_type, 0, 0, int(interlaced))
    if interlaced:
        rows = b''
        for y0, x0, dy, dx in ADAM7:
            part = samples[y0::dy, x0::dx]
            if part.size:
                rows += pack_rows(part, depth)
    else:
        rows = pack_rows(samples, depth)
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + extra + chunk(b'IDAT', zlib.compress(rows, 9))
            + chunk(b'IEND', b''))


def saved(image, kind, **options):
    b = io.BytesIO()
    image.save(b, kind, **options)
    return b.getvalue()


def rgb(height, width):
    return Image.fromarray(picture(height, width, 3))


def make():
    files = {}
    gray = Image.fromarray(picture(23, 31, 1))
    files['apple/gray.png'] = saved(gray, 'PNG')
    files['apple/rgb.png'] = saved(rgb(29, 17), 'PNG')
    files['apple/rgba.png'] = saved(Image.fromarray(picture(20, 21, 4)), 'PNG')
    files['apple/gray_alpha.png'] = saved(Image.fromarray(picture(19, 22, 2), 'LA'), 'PNG')
    files['apple/palette.png'] = saved(rgb(24, 25).quantize(40), 'PNG')
    files['apple/palette_transparent.png'] = saved(rgb(24, 25).quantize(12), 'PNG', transparency=3)
    files['apple/bilevel.png'] = saved(gray.convert('1'), 'PNG')
    files['apple/one.png'] = saved(rgb(1, 1), 'PNG')
    files['apple/gray2.png'] = png(picture(15, 13, 1)[..., None] >> 6, 0, 2)
    files['apple/gray4.png'] = png(picture(15, 13, 1)[..., None] >> 4, 0, 4)
    files['apple/gray16.png'] = png(picture(11, 14, 1)[..., None].astype(int) * 257 + 5, 0, 16)
    files['apple/rgb16.png'] = png(np.clip(picture(12, 9, 3).astype(int) * 256 + 131, 0, 65535), 2, 16)
    files['apple/rgb_interlaced.png'] = png(picture(27, 19, 3).astype(int), 2, 8, True)
    files['apple/gray4_interlaced.png'] = png(picture(21, 10, 1)[..., None] >> 4, 0, 4, True)
    files['apple/rgb_trns.png'] = png(picture(8, 8, 3).astype(int), 2, 8, False, chunk(b'tRNS', struct.pack('>HHH', 1, 2, 3)))

    files['Banana/gray.jpg'] = saved(gray, 'JPEG', quality=85)
    files['Banana/rgb444.jpg'] = saved(rgb(37, 41), 'JPEG', quality=92, subsampling=0)
    files['Banana/rgb422.JPG'] = saved(rgb(37, 41), 'JPEG', quality=80, subsampling=1)
    files['Banana/rgb420.jpeg'] = saved(rgb(40, 33), 'JPEG', quality=75, subsampling=2)
    files['Banana/progressive.JPEG'] = saved(rgb(35, 50), 'JPEG', quality=75, progressive=True)
    files['Banana/optimized.jpg'] = saved(rgb(16, 16), 'JPEG', quality=30, optimize=True)
    files['Banana/cmyk.jpg'] = saved(Image.fromarray(picture(26, 30, 4), 'CMYK'), 'JPEG', quality=90)
    files['Banana/one.jpg'] = saved(rgb(1, 1), 'JPEG')
    # Rubbish between the last data and the end marker: libjpeg warns, and all pixels are there.
    files['Banana/rubbish.jpg'] = saved(rgb(17, 18), 'JPEG')[:-2] + b'\0\0\0\xff\xd9'
    # A PNG by content, as the ImageNet training set has one; below it a deeper folder.
    files['cherry/tart/png_inside.JPEG'] = saved(rgb(14, 15), 'PNG')
    files['cherry/sour.png'] = saved(rgb(9, 10), 'PNG')
    return files


def main():
    blob = b''
    lines = []
    for path, data in make().items():
        os.makedirs(os.path.dirname('images/' + path), exist_ok=True)
        with open('images/' + path, 'wb') as f:
            f.write(data)
        image = Image.open(io.BytesIO(data))
        is_gray = image.mode in ('L', 'LA', '1', 'I', 'I;16')
        if image.mode.startswith('I'):
            image = Image.fromarray((np.array(image) >> 8).astype(np.uint8))
        color = np.array(image.convert('RGB'))
        gray = np.array(image.convert('L') if is_gray else image.convert('RGB').convert('L'))
        if not is_gray:
            assert (gray == np.array(image.convert('L'))).all(), path
        lines.append(f'{path} {color.shape[0]} {color.shape[1]} {1 if is_gray else 3} {len(blob)} '
                     f'{len(blob) + color.size}\n')
        blob += color.tobytes() + gray.tobytes()
    with open('expected.bin', 'wb') as f:
        f.write(blob)
    with open('expected.txt', 'w') as f:
        f.writelines(sorted(lines))


if __name__ == '__main__':
    main()
