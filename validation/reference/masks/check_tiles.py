"""Compares a contact sheet with the tiles that it must hold.

    /usr/bin/python3 validation/reference/masks/check_tiles.py SHEET.png TILES

TILES holds, for each tile, i32 top, left, height, width, how far pixels may be apart, and u8
[height, width, 3].
"""

import sys

import numpy as np
from PIL import Image

with open(sys.argv[2], "rb") as file:
    tiles = file.read()
picture = Image.open(sys.argv[1])
assert picture.format == "PNG" and picture.mode == "RGB", picture
pixels = np.asarray(picture)
at = n_tiles = n_wrong = 0
covered = np.zeros(pixels.shape[:2], bool)
while at < len(tiles):
    top, left, height, width, apart = np.frombuffer(tiles, np.int32, 5, at)
    tile = np.frombuffer(tiles, np.uint8, height * width * 3, at + 20)
    at += 20 + tile.size
    found = pixels[top : top + height, left : left + width].astype(int)
    n_wrong += np.max(np.abs(found - tile.reshape(height, width, 3))) > apart
    covered[top : top + height, left : left + width] = True
    n_tiles += 1
# Above each row of tiles there is a text: pixels in the colour of ink, on paper.
ink = np.all(pixels == (0x1C, 0x24, 0x30), 2) & ~covered
paper = np.all(pixels == (0xF6, 0xF7, 0xF9), 2) & ~covered
is_fine = n_wrong == 0 and n_tiles >= 20 and ink.sum() > 500 and paper.sum() > ink.sum()
print("%d tiles, %d differ, %d pixels of ink" % (n_tiles, n_wrong, ink.sum()))
sys.exit(not is_fine)
