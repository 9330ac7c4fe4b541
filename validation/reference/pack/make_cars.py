#!/usr/bin/env python3
"""Makes cars/*.mat, lists of annotations as Cars-196 has them, by SciPy's savemat.

Run it in this folder. The stored files were made with Python 3.11, NumPy 1.24.2 and SciPy 1.11.4.
packed.mat: numbers of one byte, packed by zlib as the published one; plain.mat: not packed, numbers
are doubles; cars.txt: lines "path class", class counted from 1, in the order of both.
"""
import numpy as np
from scipy.io import savemat

CLASSES = [1, 98, 99, 196, 1, 57, 98, 130, 99]


def main():
    kind = np.dtype([(name, object) for name in ('relative_im_path', 'bbox_x1', 'bbox_y1', 'bbox_x2', 'bbox_y2',
                                                 'class', 'test')])
    names = np.empty((1, 196), object)
    names[0] = [f'Maker {c} Sedan 20{c % 100:02d}' for c in range(1, 197)]
    names[0, 97] = 'Citro\u00ebn 2CV 1990'
    with open('cars/cars.txt', 'w') as f:
        f.writelines(f'car_ims/{i + 1:06d}.jpg {c}\n' for i, c in enumerate(CLASSES))
    for file, number, packed in (('packed', np.uint8, True), ('plain', np.float64, False)):
        list_ = np.empty((1, len(CLASSES)), kind)
        for i, c in enumerate(CLASSES):
            list_[0, i] = (f'car_ims/{i + 1:06d}.jpg', np.uint16(300 + i), number(2), number(3), number(4), number(c),
                           number(i % 2))
        savemat(f'cars/{file}.mat', {'annotations': list_, 'class_names': names}, do_compression=packed)


if __name__ == '__main__':
    main()
