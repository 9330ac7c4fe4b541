#!/usr/bin/env python3
"""Compares shards with their source, using h5py, NumPy, gzip and Pillow alone; exit 0 if they agree.

    check_shards.py idx FOLDER PREFIX SHARD...        FOLDER/PREFIX-images-idx3-ubyte.gz and its labels
    check_shards.py cifar FOLDER SHARD...             FOLDER/data_batch_*.bin
    check_shards.py folder FOLDER SHARD...            class/image, pack%classes = 'top'
    check_shards.py tree FOLDER SHARD...              super-class/class/image, pack%classes = 'leaf'
    check_shards.py list FOLDER LIST SHARD...         lines 'path label'
    check_shards.py csv FOLDER CSV IMAGE LABEL SHARD...  class/image; labels from two columns of CSV
    check_shards.py tar ARCHIVES SHARD...             members class/image (ARCHIVES separated by commas)
    check_shards.py small FOLDER SIDE PIXELS QUALITY SHARD...  class/image; pack%max_side = PIXELS

Every object of the format is looked at: types, shapes, layout, attributes, offsets, names.
"""
import csv
import glob
import gzip
import io
import os
import struct
import sys
import tarfile

import h5py
import numpy as np
from PIL import Image


def need(ok, text):
    if not ok:
        sys.exit(f'check_shards: {text}')


def text_of(value):
    return value.decode() if isinstance(value, bytes) else value


def read_shard(path):
    """Samples of one shard as (name, label, height, width, channels, bytes)."""
    kinds = {'data': 'u1', 'offset': 'i8', 'height': 'i4', 'width': 'i4', 'channels': 'i4', 'label': 'i4',
             'checksum': 'u8', 'name': 'u1', 'name_offset': 'i8'}
    with h5py.File(path, 'r') as f:
        a = {k: text_of(v) for k, v in f.attrs.items()}
        need(a['format'] == 'hirl-shard' and a['version'] == 1, f'{path}: attributes {a}')
        n = int(a['n_samples'])
        for name, kind in kinds.items():
            need(f[name].dtype == np.dtype('<' + kind), f'{path}: {name} is {f[name].dtype}')
            need(f[name].chunks is None and f[name].ndim == 1, f'{path}: {name} is chunked')
            if name in ('offset', 'name_offset'):
                need(f[name].shape[0] == n + 1, f'{path}: {name} is {f[name].shape}')
            elif name not in ('data', 'name'):
                need(f[name].shape[0] == n, f'{path}: {name} is {f[name].shape}')
        v = {name: f[name][:] for name in kinds}
        # The bytes lie where HDF5 says, so that they can be read without it.
        with open(path, 'rb') as raw:
            raw.seek(f['data'].id.get_offset())
            need(raw.read(f['data'].size) == v['data'].tobytes(), f'{path}: data is not in one place')
        need(f['data'].id.get_offset() % 4096 == 0 or f['data'].size < 65536, f'{path}: data is not aligned')
        classes = [text_of(c) for c in f['class_name'][:]] if 'class_name' in f else None
        if 'class_parent' in f:
            parents = [int(p) for p in f['class_parent'][:]]
            classes = [(c, classes[p] if p >= 0 else None) for c, p in zip(classes, parents)]
    need(v['offset'][0] == 0 and v['offset'][-1] == v['data'].size and (np.diff(v['offset']) > 0).all(), 'offset')
    need(v['name_offset'][0] == 0 and v['name_offset'][-1] == v['name'].size, 'name_offset')
    data, names = v['data'].tobytes(), v['name'].tobytes()
    samples = [(names[v['name_offset'][i]:v['name_offset'][i + 1]].decode(), int(v['label'][i]), int(v['height'][i]),
                int(v['width'][i]), int(v['channels'][i]), data[v['offset'][i]:v['offset'][i + 1]]) for i in range(n)]
    return a, classes, samples


def read_all(paths):
    samples, classes = [], None
    for number, path in enumerate(sorted(paths)):
        a, classes, part = read_shard(path)
        need(a['number'] == number and a['n_shards'] == len(paths), f'{path}: number {a["number"]} of {a["n_shards"]}')
        samples += part
    need(a['n_split_samples'] == len(samples), 'n_split_samples')
    return a, classes, samples


def idx(folder, prefix):
    with gzip.open(f'{folder}/{prefix}-images-idx3-ubyte.gz') as f:
        _, n, h, w = struct.unpack('>IIII', f.read(16))
        pixels = np.frombuffer(f.read(), np.uint8).reshape(n, h, w)
    with gzip.open(f'{folder}/{prefix}-labels-idx1-ubyte.gz') as f:
        labels = np.frombuffer(f.read(), np.uint8, offset=8)
    for i in range(n):
        yield f'{prefix}-images-idx3-ubyte.gz#{i}', int(labels[i]), h, w, 1, pixels[i].tobytes()


def cifar(folder):
    for path in sorted(glob.glob(folder + '/data_batch_*.bin')):
        records = np.fromfile(path, np.uint8).reshape(-1, 3073)
        pixels = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        for i, record in enumerate(records):
            if record[0] < 10:
                yield f'{os.path.basename(path)}#{i}', int(record[0]), 32, 32, 3, pixels[i].tobytes()


def sample_of(root, path, label):
    with open(os.path.join(root, path), 'rb') as f:
        return sample_from(path, label, f.read())


def sample_from(path, label, data):
    image = Image.open(io.BytesIO(data))
    image.load()
    is_gray = image.mode in ('1', 'L', 'LA', 'I', 'I;16')
    return path, label, image.height, image.width, 1 if is_gray else 3, data


def folder(root):
    classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    for label, name in enumerate(classes):
        for place, _, files in sorted(os.walk(os.path.join(root, name), followlinks=True)):
            for file in sorted(files):
                yield sample_of(root, os.path.relpath(os.path.join(place, file), root), label)


def folders_of(root):
    """Paths of folders below root that hold images or nothing, and of those that hold folders."""
    leaves, inner = [], []
    for place, folders, files in os.walk(root, followlinks=True):
        path = os.path.relpath(place, root)
        if path != '.':
            leaves += [path] if files or not folders else []
            inner += [path] if folders else []
    return sorted(leaves), inner


def tree(root):
    for label, place in enumerate(folders_of(root)[0]):
        for file in sorted(os.listdir(os.path.join(root, place))):
            if not os.path.isdir(os.path.join(root, place, file)):
                yield sample_of(root, f'{place}/{file}', label)


def tree_classes(root):
    """The label tree: (name, name of the super-class), classes first."""
    leaves, inner = folders_of(root)
    named = [(f'{path}/.', path) if path in inner else (path, os.path.dirname(path) or None) for path in leaves]
    inner.sort(key=lambda path: (-path.count('/'), path))
    return named + [(path, os.path.dirname(path) or None) for path in inner]


def listed(root, path):
    with open(path, encoding='utf-8') as f:
        for line in f.read().splitlines():
            name, label = line.rsplit(' ', 1)
            yield sample_of(root, name, int(label))


def read_table(path, image, label):
    """Labels by the image's name, and the names of classes (None: labels are numbers)."""
    with open(path, encoding='utf-8-sig', newline='') as f:
        rows = {row[image]: row[label] for row in csv.DictReader(f)}
    if all(label.lstrip('-').isdigit() for label in rows.values()):
        return {name: int(label) for name, label in rows.items()}, None
    classes = sorted(set(rows.values()), key=lambda name: name.encode())
    return {name: classes.index(label) for name, label in rows.items()}, classes


def table(root, path, image, label):
    labels = read_table(path, image, label)[0]
    for name, _, *rest in tree(root):
        file = os.path.basename(name)
        keys = [key for key in (name, file, os.path.splitext(file)[0]) if key in labels]
        yield (name, labels[keys[0]] if keys else -1, *rest)


def archived(paths):
    found = []
    for number, path in enumerate(paths.split(',')):
        with tarfile.open(path, 'r:') as archive:
            members = {}
            for m in archive:
                name = os.path.normpath(m.name)
                hidden = any(part.startswith('.') for part in name.split('/'))
                if m.isreg() and m.size and not hidden and name.lower().endswith(('.png', '.jpg', '.jpeg')):
                    members[name] = archive.extractfile(m).read()
            found += [(os.path.dirname(name), name, number, data) for name, data in members.items()]
    found.sort(key=lambda f: (f[0].encode(), f[1].encode(), f[2]))
    classes = sorted({f[0] for f in found}, key=lambda name: name.encode())
    for place, name, _, data in found:
        yield sample_from(name, classes.index(place) if classes != [''] else -1, data)


def decoded(data):
    """Pixels as packing sees them."""
    image = Image.open(io.BytesIO(data))
    if image.mode.startswith('I'):  # of 16 bits the upper byte counts
        return Image.fromarray((np.array(image) >> 8).astype(np.uint8))
    return image.convert('L' if image.mode in ('1', 'L', 'LA') else 'RGB')


def small(root, side, most, quality):
    """Images whose side is longer, resized and encoded by Pillow; the others as they are."""
    for name, label, height, width, channels, data in tree(root):
        now, most = max(height, width) if side == 'longer' else min(height, width), int(most)
        if now > most:
            size = [max(1, (2 * v * most + now) // (2 * now)) for v in (width, height)]
            b = io.BytesIO()
            image = decoded(data).resize(size, Image.BICUBIC)
            image.save(b, 'JPEG', quality=int(quality), subsampling=2)
            width, height, data = *size, b.getvalue()
        yield name, label, height, width, channels, data


def as_pixels(sample):
    """Two encoders agree if what they made decodes to the same pixels."""
    data = sample[5]
    return (*sample[:5], np.array(Image.open(io.BytesIO(data))).tobytes() if data[:2] == b'\xff\xd8' else data)


def main():
    kind, n_args = sys.argv[1], {'idx': 2, 'cifar': 1, 'folder': 1, 'tree': 1, 'list': 2, 'csv': 4, 'tar': 1, 'small': 4}[sys.argv[1]]
    readers = {'idx': idx, 'cifar': cifar, 'folder': folder, 'tree': tree, 'list': listed, 'csv': table,
               'tar': archived, 'small': small}
    want = list(readers[kind](*sys.argv[2:2 + n_args]))
    a, classes, got = read_all(sys.argv[2 + n_args:])
    if a['is_shuffled'] or a['n_holdout']:
        need(len(set(name for name, *_ in got)) == len(got), 'a sample occurs twice')
        position = {name: i for i, (name, *_) in enumerate(want)}
        got.sort(key=lambda sample: position[sample[0]])
        kept = set(name for name, *_ in got)
        need(len(got) == len(want) - a['n_holdout'] * ('taken_from' not in a), f'{len(got)} of {len(want)} samples')
        want = [sample for sample in want if sample[0] in kept]
    if kind == 'small':
        got, want = [as_pixels(sample) for sample in got], [as_pixels(sample) for sample in want]
    need(len(got) == len(want), f'{len(got)} samples, expected {len(want)}')
    for g, w in zip(got, want):
        need(g == w, f'{w[0]}: got {g[:5]}, expected {w[:5]}, bytes {"agree" if g[5] == w[5] else "differ"}')
    if kind == 'folder':
        need(classes == sorted(entry.name for entry in os.scandir(sys.argv[2]) if entry.is_dir()), f'{classes}')
    if kind == 'tree':
        need(classes == tree_classes(sys.argv[2]), f'{classes}')
    if kind == 'csv':
        need(classes == read_table(*sys.argv[3:6])[1], f'{classes}')
    print(f'{len(got)} samples agree')


if __name__ == '__main__':
    main()
