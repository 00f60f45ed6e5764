#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/golden/pictures: small PNG and JPEG files of every kind that a photograph comes in, and pictures.txt with the
pixels that Pillow reads from them as diffusers' load_image does (exif_transpose, then RGB; RGBA where there is transparency):
one line a file, `name width height channels sha256`.

usage: make_pictures.py            needs Pillow; pictures.txt names its version
"""
import hashlib
import os
import struct
import zlib

import PIL
from PIL import Image, ImageCms, ImageOps

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, 'pictures')
PHOTO = os.path.join(HERE, '..', '..', 'examples', 'demo-model', 'photos', 'coffee_256.png')
WIDTH, HEIGHT = 31, 22  # not multiples of anything that a codec works in


def chunk(name, data):
    return struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))


def png(name, rows, bits, colour, before=b'', interlace=0):
    """rows: bytes of each line, or of each pass's lines."""
    data = b''.join(b'\0' + row for row in rows)
    with open(os.path.join(OUT, name), 'wb') as f:
        f.write(b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', WIDTH, HEIGHT, bits, colour, 0, 0, interlace)) +
                before + chunk(b'IDAT', zlib.compress(data, 9)) + chunk(b'IEND', b''))


def rgb_rows(image, xs=range(WIDTH), ys=range(HEIGHT)):
    return [b''.join(bytes(image.getpixel((x, y))) for x in xs) for y in ys]


def write_pngs(image):
    rows = rgb_rows(image)
    image.save(os.path.join(OUT, 'plain.png'))
    png('gamma.png', rows, 8, 2, chunk(b'gAMA', struct.pack('>I', 100000)) + chunk(b'cHRM', struct.pack('>8I', *[31270, 32900,
        64000, 33000, 21000, 71000, 15000, 6000])))
    image.save(os.path.join(OUT, 'profile.png'), icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile('LAB')).tobytes())
    # Upper byte the picture's, lower byte large: rounding instead of cutting would show.
    png('deep.png', [bytes(v for value in row for v in (value, 0xe7)) for row in rows], 16, 2)
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    png('interlaced.png', [row for x, y, dx, dy in passes
                           for row in rgb_rows(image, range(x, WIDTH, dx), range(y, HEIGHT, dy))], 8, 2, interlace=1)
    image.convert('L').save(os.path.join(OUT, 'grey.png'))
    image.convert('1').save(os.path.join(OUT, 'bits.png'))
    image.quantize(13).save(os.path.join(OUT, 'palette.png'))
    image.quantize(13).save(os.path.join(OUT, 'palette-alpha.png'), transparency=bytes(range(0, 260, 20)))
    alpha = Image.linear_gradient('L').resize((WIDTH, HEIGHT))
    Image.merge('RGBA', image.split() + (alpha,)).save(os.path.join(OUT, 'alpha.png'))
    Image.merge('LA', (image.convert('L'), alpha)).save(os.path.join(OUT, 'grey-alpha.png'))
    image.save(os.path.join(OUT, 'turned.png'), exif=orientation(6))


def orientation(value):
    exif = Image.Exif()
    exif[0x010f] = 'a maker'
    exif[0x0112] = value
    return exif


def write_jpegs(image):
    for value in range(1, 9):
        image.save(os.path.join(OUT, f'turned-{value}.jpg'), quality=90, exif=orientation(value))
    image.save(os.path.join(OUT, 'progressive.jpg'), quality=80, progressive=True)
    image.save(os.path.join(OUT, 'full-colour.jpg'), quality=95, subsampling=0)
    image.convert('L').save(os.path.join(OUT, 'grey.jpg'), quality=90)
    # The other byte order.
    exif = b'Exif\0\0II*\0\x08\0\0\0\x01\0' + struct.pack('<HHIHH', 0x0112, 3, 1, 3, 0) + b'\0\0\0\0'
    image.save(os.path.join(OUT, 'little-endian.jpg'), quality=90, exif=exif)
    # Refused: no line in pictures.txt.
    image.convert('CMYK').save(os.path.join(OUT, 'cmyk.jpg'), quality=90)


def main():
    os.makedirs(OUT, exist_ok=True)
    image = Image.open(PHOTO).convert('RGB').crop((70, 40, 70 + 8 * WIDTH // 2, 40 + 8 * HEIGHT // 2)).resize((WIDTH, HEIGHT))
    write_pngs(image)
    write_jpegs(image)
    with open(os.path.join(OUT, 'pictures.txt'), 'w') as f:
        f.write(f'# Pillow {PIL.__version__}: name width height channels sha256-of-the-pixels\n')
        for name in sorted(os.listdir(OUT)):
            if name in ('pictures.txt', 'cmyk.jpg'):
                continue
            picture = ImageOps.exif_transpose(Image.open(os.path.join(OUT, name)))
            picture = picture.convert('RGBA' if picture.mode in ('RGBA', 'LA') or 'transparency' in picture.info else 'RGB')
            f.write(f'{name} {picture.width} {picture.height} {len(picture.mode)} '
                    f'{hashlib.sha256(picture.tobytes()).hexdigest()}\n')


main()
