#!/usr/bin/env python3
"""Writes tar archives of the images under images/ with Python's tarfile, for tests of packing.

    make_tars.py IMAGES FOLDER

ustar.tar, pax.tar, gnu.tar: class folders, paths longer than a header has room for, links, hidden
and empty members, a path twice; flat.tar: no folders; names of more than 256 bytes but in ustar.
"""
import io
import os
import sys
import tarfile


def add(archive, name, data, **more):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in more.items():
        setattr(member, key, value)
    archive.addfile(member, io.BytesIO(data))


def main():
    images, folder = sys.argv[1:]
    files = {}
    for place, _, names in sorted(os.walk(images)):
        for name in sorted(names):
            with open(os.path.join(place, name), 'rb') as f:
                files[os.path.relpath(os.path.join(place, name), images)] = f.read()
    one = files['apple/one.png']
    kinds = {'ustar': tarfile.USTAR_FORMAT, 'pax': tarfile.PAX_FORMAT, 'gnu': tarfile.GNU_FORMAT}
    for kind, number in kinds.items():
        with tarfile.open(f'{folder}/{kind}.tar', 'w', format=number) as archive:
            directory = tarfile.TarInfo('apple')
            directory.type = tarfile.DIRTYPE
            archive.addfile(directory)
            for name, data in files.items():
                add(archive, './' + name if name[0] == 'B' else name, data, uname='n' * 31)
            add(archive, 'long/' + 'p' * 90 + '/' + 'q' * 60 + '.png', one)
            if kind != 'ustar':
                add(archive, 'long/' + '/'.join('r' * 200 for _ in range(3)) + '/' + 's' * 200 + '.jpeg', one)
                add(archive, 'caf\u00e9/\u00e9t\u00e9.png', one)
            if kind == 'pax':
                add(archive, 'sized/1.png', one, pax_headers={'size': str(len(one)), 'comment': 'a=b\nc'})
            add(archive, 'zwice/1.png', files['apple/rgb.png'])
            add(archive, 'zwice/1.png', one)
            add(archive, 'apple/empty.png', b'')
            add(archive, 'apple/._one.png', one)
            add(archive, '.hidden/one.png', one)
            add(archive, 'apple/notes.txt', b'x' * 1000)
            add(archive, 'apple/link.png', b'', type=tarfile.SYMTYPE, linkname='one.png')
            add(archive, 'apple/hard.png', b'', type=tarfile.LNKTYPE, linkname='apple/one.png')
    with tarfile.open(f'{folder}/flat.tar', 'w') as archive:
        for name in ('apple/rgb.png', 'Banana/one.jpg'):
            add(archive, os.path.basename(name), files[name])


if __name__ == '__main__':
    main()
