#!/usr/bin/env python3
"""Tiny data sets in the layouts that packing knows by name, and what their shards must hold.

    layouts.py make FOLDER            CUB, Cars, SOP, In-shop and VOC 2007 under FOLDER
    layouts.py check FOLDER SHARDS    SHARDS/<format>-<split>/*.h5 against FOLDER, by h5py

What is expected is worked out from the folders and lists by code that shares nothing with hirl.x;
that of Cars from cars/cars.txt, which make_cars.py wrote beside the MATLAB file.
"""
import glob
import io
import os
import random
import shutil
import sys

import h5py
import numpy as np
from PIL import Image

HERE = os.path.dirname(os.path.abspath(__file__))
VOC = ('aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant '
       'sheep sofa train tvmonitor').split()


def image(path, number):
    """A picture that no other file has."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    pixels = np.full((4, 5, 3), [number % 251, number // 251, 77], np.uint8)
    b = io.BytesIO()
    Image.fromarray(pixels).save(b, 'PNG')
    with open(path, 'wb') as f:
        f.write(b.getvalue())


def write(path, lines):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'w') as f:
        f.writelines(line + '\n' for line in lines)


def make(root):
    rng, n = random.Random(20240229), 0
    for c in range(200):
        for i in range(1 + (c % 97 == 0)):
            image(f'{root}/cub/CUB_200_2011/images/{c + 1:03d}.Bird_{c % 7}/b_{i}.jpg', n := n + 1)
    image(f'{root}/cub/CUB_200_2011/images/001.Bird_0/._b_0.jpg', 0)

    os.makedirs(f'{root}/cars/cars196', exist_ok=True)
    shutil.copy(f'{HERE}/cars/packed.mat', f'{root}/cars/cars196/cars_annos.mat')
    for line in open(f'{HERE}/cars/cars.txt'):
        image(f'{root}/cars/cars196/{line.split()[0]}', n := n + 1)

    kinds = ('bicycle', 'chair', 'sofa')
    for name, classes in (('train', range(1, 8)), ('test', range(8, 15))):
        lines = ['image_id class_id super_class_id path']
        for c in classes:
            for i in range(2):
                path = f'{kinds[c % 3]}_final/{c * 1111}_{i}.JPG'
                image(f'{root}/sop/Stanford_Online_Products/{path}', n := n + 1)
                lines.append(f'{len(lines)} {c} {c % 3 + 1} {path}')
        write(f'{root}/sop/Stanford_Online_Products/Ebay_{name}.txt', lines)

    lines = []
    for k in range(24):
        id_, state = f'id_{rng.choice([3, 12, 5]) if k % 3 else rng.choice([7, 9]):08d}', ['train', 'query', 'gallery'][k % 3]
        path = f'img/WOMEN/Dresses/{id_}/{k:02d}_1_front.jpg'
        image(f'{root}/inshop/Inshop_Clothes/Img/{path}', n := n + 1)
        lines.append(f'{path:<60}{id_}    {state}')
    write(f'{root}/inshop/Inshop_Clothes/Eval/list_eval_partition.txt',
          [str(len(lines)), 'image_name item_id evaluation_status'] + lines)

    for name in ('train', 'val', 'trainval', 'test'):
        names = [f'{rng.randrange(10000):06d}' for _ in range(5)]
        for id_ in names:
            image(f'{root}/voc07/VOCdevkit/VOC2007/JPEGImages/{id_}.jpg', n := n + 1)
        for c in VOC:
            write(f'{root}/voc07/VOCdevkit/VOC2007/ImageSets/Main/{c}_{name}.txt',
                  [f'{id_} {rng.choice([-1, -1, 0, 1]):2d}' for id_ in names])


def read(path):
    with open(path, 'rb') as f:
        return f.read()


def lines_of(path):
    with open(path) as f:
        return [line.split() for line in f if line.strip()]


def expect(root, kind, split):
    """Base folder; (path, label, targets) of each sample; (name, super-class) of each class."""
    if kind == 'cub':
        base = f'{root}/cub/CUB_200_2011/images'
        classes = sorted(os.listdir(base))
        half = range(100) if split == 'train' else range(100, 200)
        rows = [(f'{classes[c]}/{file}', c, None) for c in half for file in sorted(os.listdir(f'{base}/{classes[c]}'))
                if not file.startswith('._')]
        return base, rows, [(c, None) for c in classes]
    if kind == 'cars':
        rows = [(path, int(c) - 1, None) for path, c in lines_of(f'{HERE}/cars/cars.txt')
                if (int(c) <= 98) == (split == 'train')]
        names = [f'Maker {c} Sedan 20{c % 100:02d}' for c in range(1, 197)]
        names[97] = 'Citro\u00ebn 2CV 1990'
        return f'{root}/cars/cars196', rows, [(c, None) for c in names]
    if kind == 'sop':
        base = f'{root}/sop/Stanford_Online_Products'
        both = {s: lines_of(f'{base}/Ebay_{s}.txt')[1:] for s in ('train', 'test')}
        rows = [(p, int(c) - 1, None) for _, c, _, p in both['train' if split == 'train' else 'test']]
        of = {int(c): (int(s), p.split('/')[0]) for part in both.values() for _, c, s, p in part}
        supers = [name for _, name in sorted(set(of.values()))]
        return base, rows, [(str(c), of[c][1]) for c in sorted(of)] + [(s, None) for s in supers]
    if kind == 'inshop':
        base = f'{root}/inshop/Inshop_Clothes'
        lines = [line for line in lines_of(f'{base}/Eval/list_eval_partition.txt')[2:]]
        part = [line for line in lines if (line[2] == 'train') == (split == 'train')]
        ids = sorted({line[1] for line in part}, key=lambda name: int(name.split('_')[-1]))
        return f'{base}/Img', [(p, ids.index(i), None) for p, i, s in part if s == split], [(i, None) for i in ids]
    base = f'{root}/voc07/VOCdevkit/VOC2007'
    tables = [lines_of(f'{base}/ImageSets/Main/{c}_{split}.txt') for c in VOC]
    rows = [(f'JPEGImages/{line[0]}.jpg', -1, [int(table[i][1]) for table in tables])
            for i, line in enumerate(tables[0])]
    return base, rows, [(c, None) for c in VOC]


def check(root, shards):
    n = 0
    for folder in sorted(glob.glob(f'{shards}/*-*/')):
        kind, split = os.path.basename(folder[:-1]).split('-')
        base, rows, classes = expect(root, kind, split)
        with h5py.File(glob.glob(folder + '*.h5')[0]) as f:
            assert f.attrs['version'] == 1 and f.attrs['source_format'].decode() == kind
            names, at, data, offset = f['name'][:].tobytes(), f['name_offset'][:], f['data'][:].tobytes(), f['offset'][:]
            got = [(names[at[i]:at[i + 1]].decode(), int(label), f['target'][i].tolist() if 'target' in f else None)
                   for i, label in enumerate(f['label'][:])]
            table = [name.decode() for name in f['class_name'][:]]
            parents = f['class_parent'][:] if 'class_parent' in f else [-1] * len(table)
            found = [(name, table[p] if p >= 0 else None) for name, p in zip(table, parents)]
            if 'target' in f:
                assert f['target'].dtype == np.int8 and f['target'].shape == (len(rows), 20)
        assert got == rows, f'{kind} {split}: {got} instead of {rows}'
        assert found == classes, f'{kind} {split}: {found} instead of {classes}'
        for i, (path, _, _) in enumerate(rows):
            assert data[offset[i]:offset[i + 1]] == read(f'{base}/{path}'), f'{kind} {split}: {path}'
        n += 1
    assert n == 13, f'{n} splits were packed, expected 13'
    print('13 splits agree')


if __name__ == '__main__':
    make(sys.argv[2]) if sys.argv[1] == 'make' else check(sys.argv[2], sys.argv[3])
