#!/usr/bin/env python3
"""Makes damaged and odd image files under odd/ and Pillow's opinion of each (odd.txt, odd.bin).

Run it in this folder. The stored files were made with Python 3.11, NumPy 1.24.2, Pillow 9.4.0,
libjpeg-turbo 2.1.5 and seed 20240229.

A line of odd.txt: file, 'good' or 'bad', height, width, channels as stored, offset of the RGB pixels
(Image.convert('RGB')) in odd.bin; for a bad one zeros. Files of which packing thinks otherwise than
Pillow are called other_*: packing takes PNG and JPEG only. Of 16-bit grey samples the upper byte counts (Pillow would clip values above 255).
"""
import io
import os
import struct
import sys

import numpy as np
from PIL import Image

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import make_images as m  # noqa: E402


def files():
    photo, gray = m.rgb(40, 56), Image.fromarray(m.picture(24, 18, 1))
    baseline = m.saved(photo, 'JPEG', quality=90)
    progressive = m.saved(photo, 'JPEG', quality=90, progressive=True)
    png = m.saved(photo, 'PNG')
    idat = png.index(b'IDAT')
    wrong = bytearray(png)
    wrong[idat + 40] ^= 0x55
    huge = struct.pack('>IIBBBBB', 60000, 60000, 8, 2, 0, 0, 0)
    wide = bytearray(baseline)
    frame = wide.index(b'\xff\xc0')
    wide[frame + 5:frame + 9] = struct.pack('>HH', 65000, 65000)
    deep = m.picture(11, 14, 1)[..., None].astype(int) * 257 + 5
    return {
        'zero.jpg': b'', 'zero.png': b'',
        'one_byte.jpg': b'\xff',
        'text.jpg': b'this is no image\n' * 9,
        'html.png': b'<!DOCTYPE html><html>404 Not Found</html>\n',
        'head.jpg': baseline[:frame],
        'head.png': png[:33],
        'cut.jpg': baseline[:len(baseline) // 2],
        'cut_progressive.jpg': progressive[:len(progressive) // 2],
        'cut.png': png[:len(png) // 2],
        'damaged.png': bytes(wrong),
        'huge.png': b'\x89PNG\r\n\x1a\n' + m.chunk(b'IHDR', huge) + m.chunk(b'IDAT', b'x') + m.chunk(b'IEND', b''),
        'huge.jpg': bytes(wide),
        'cmyk.jpg': m.saved(Image.fromarray(m.picture(26, 30, 4), 'CMYK'), 'JPEG', quality=90),
        'gray.jpg': m.saved(gray, 'JPEG', quality=85),
        'gray16.png': m.png(deep, 0, 16),
        'rgb16.png': m.png(np.clip(m.picture(12, 9, 3).astype(int) * 256 + 131, 0, 65535), 2, 16),
        'progressive.jpeg': progressive,
        'tail.jpg': baseline + b'\0' * 100,
        'palette.png': m.saved(photo.quantize(20), 'PNG'),
        'rgba.PNG': m.saved(Image.fromarray(m.picture(20, 21, 4)), 'PNG'),
        'png_inside.jpg': png,
        'jpeg_inside.png': baseline,
        'other_gif.jpg': m.saved(photo.quantize(20), 'GIF'),
        'other_bmp.png': m.saved(photo, 'BMP'),
        'no_end.jpg': baseline[:-2],
    }


def opinion(data):
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except Exception as error:  # whatever Pillow raises is its opinion
        return None, f'{type(error).__name__}: {error}'
    is_gray = image.mode in ('L', 'LA', '1', 'I', 'I;16')
    if image.mode.startswith('I'):
        image = Image.fromarray((np.array(image) >> 8).astype(np.uint8))
    return np.array(image.convert('RGB')), 1 if is_gray else 3


def main():
    blob, lines = b'', []
    os.makedirs('odd', exist_ok=True)
    for name, data in files().items():
        with open('odd/' + name, 'wb') as f:
            f.write(data)
        pixels, what = opinion(data)
        if pixels is None:
            lines.append(f'{name} bad 0 0 0 0\n')
            print(f'{name}: {what}')
            continue
        lines.append(f'{name} good {pixels.shape[0]} {pixels.shape[1]} {what} {len(blob)}\n')
        blob += pixels.tobytes()
    with open('odd.bin', 'wb') as f:
        f.write(blob)
    with open('odd.txt', 'w') as f:
        f.writelines(sorted(lines))


if __name__ == '__main__':
    main()
