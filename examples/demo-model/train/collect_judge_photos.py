"""Collect the photographs for the judge from Debian's packages: those to train on and those held out.

usage: collect_judge_photos.py PACKAGES TRAIN_FOLDER HELD_OUT_FOLDER [PHOTO ...]

PACKAGES is where the packages named below were unpacked (`apt-get download NAME; dpkg -x NAME_*.deb PACKAGES`). A PHOTO
from elsewhere is trained on too. Photographs to train on become WebP of at most 384 pixels on the short side; those held
out square JPEG of 256x256, cut from the middle. JUDGE-PHOTOS.md lists all with their licences. Needs Pillow.
"""
import glob
import os
import struct
import sys
import zlib

from PIL import Image

SHORT_SIDE, SIZE = 384, 256
BACKGROUNDS, MATE, PLASMA = 'usr/share/backgrounds', 'usr/share/backgrounds/mate/nature', 'usr/share/wallpapers'
RESOURCES, ACTIVITIES = 'usr/share/gcompris-qt/rcc', 'gcompris/src/activities'
# Never trained on. Each has a licence of its own in its package's copyright file.
HELD_OUT = {
    BACKGROUNDS: ['seeding_by_Clements_Engelhardt', 'sunset_by_Aitzol_Berasategi', 'picosdeeuropa_by_Aitzol_Berasategi',
                  'life_by_Aitzol_Berasategi', 'friends_by_Aitzol_Berasategi', 'aitzgorri_by_Aitzol_Berasategi', 'Wine_by_Jakkub_Mede',
                  'Picture_0B_by_freespace', 'Picture_1A_by_freespace', 'Bridge_by_Sander_Klootwijk', 'Dragonfly_by_Bolly'],
    'categorization/resource/images': ['fishes/fish14', 'monuments/greatWall', 'monuments/monument1', 'monuments/victoriaMemorial',
                                       'renewable/dam2', 'renewable/solar4', 'renewable/solar7'],
    'explore_world_animals/resource/animals': ['moose', 'panda', 'crocodile', 'polar_bear'],
}
TRAINED = {
    BACKGROUNDS: ['free_by_Peter_Nerlich', 'Kleiber_by_Lukas_Baubkus'],
    MATE: ['*'],
    PLASMA: ['FallenLeaf', 'Path', 'DarkestHour', 'summer_1am', 'EveningGlow', 'Grey', 'Kite', 'ColorfulCups', 'OneStandsOut', 'ColdRipple',
             'BytheWater'],
    'categorization/resource/images': ['fishes/*', 'monuments/*', 'renewable/*', 'others/baseball'],
    'clickgame/resource': ['sea*'],
    'details/resource/image': ['Chenonceau*', 'Egeskov*', 'Eilan*', 'Fanoe*', 'Gizah*', 'Louvre*', 'NDP*', 'Nagoya*', 'Neuschwan*', 'Opera*',
                               'TourEiffel*', 'TowerBridge*'],
    'erase/resource': ['*'],
    'explore_farm_animals/resource/animals': ['*'],
    'explore_world_animals/resource/animals': ['*'],
    'explore_monuments/resource': ['egypt/*', 'france/*', 'germany/*', 'india/*', 'usa/*', 'wonders/*'],
    'explore_world_music/resource/music': ['africa', 'america', 'italy', 'orchestra'],
}
NEVER = ['kangaroo']  # GFDL
SMALLEST = 25000  # bytes; smaller files are buttons and drawings


def unpack(path, folder):
    """The files of a Qt resource bundle."""
    with open(path, 'rb') as f:
        data = f.read()
    magic, version, tree, contents, names = struct.unpack('>4sIIII', data[:20])
    assert magic == b'qres', path
    entry = 22 if version >= 2 else 14

    def walk(index, at):
        row = data[tree + index * entry:tree + (index + 1) * entry]
        name, flags = struct.unpack('>IH', row[:6])
        length = struct.unpack('>H', data[names + name:names + name + 2])[0]
        text = data[names + name + 6:names + name + 6 + 2 * length].decode('utf-16-be') if index else ''
        if flags & 2:
            count, first = struct.unpack('>II', row[6:14])
            for k in range(count):
                walk(first + k, os.path.join(at, text))
            return
        start = contents + struct.unpack('>I', row[10:14])[0]
        body = data[start + 4:start + 4 + struct.unpack('>I', data[start:start + 4])[0]]
        body = zlib.decompress(body[4:]) if flags & 1 else body
        os.makedirs(at, exist_ok=True)
        with open(os.path.join(at, text), 'wb') as f:
            f.write(body)
    walk(0, folder)


def find(packages, folder, name):
    """The files of one name or pattern."""
    if folder == PLASMA:
        return glob.glob(f'{packages}/{PLASMA}/{name}/contents/images/2560x1600.jpg')
    root = packages if folder.startswith('usr/') else f'{packages}/unpacked/{ACTIVITIES}'
    found = sorted(glob.glob(f'{root}/{folder}/{name}.jpg') + glob.glob(f'{root}/{folder}/{name}.webp'))
    return [path for path in found if os.path.getsize(path) >= SMALLEST]


def label(path):
    """A short name: the file's, or that of the wallpaper."""
    parts = path.split('/')
    name = parts[-4] if parts[-1].startswith('2560') else os.path.splitext(parts[-1])[0]
    return name.split('_by_')[0] if '_by_' in name else name


def main(packages, trained, held_out, *extra):
    for activity in sorted({folder.split('/')[0] for folder in TRAINED if not folder.startswith('usr/')}):
        unpack(f'{packages}/{RESOURCES}/{activity}.rcc', f'{packages}/unpacked')
    kept = {path for folder, names in HELD_OUT.items() for name in names for path in find(packages, folder, name)}
    for folder in (trained, held_out):
        os.makedirs(folder, exist_ok=True)
    for path in sorted(kept):
        image = Image.open(path).convert('RGB')
        side = min(image.size)
        left, top = (image.size[0] - side) // 2, (image.size[1] - side) // 2
        square = image.crop((left, top, left + side, top + side)).resize((SIZE, SIZE), Image.LANCZOS)
        square.save(f'{held_out}/{label(path)}.jpg', quality=93, subsampling=0)
    paths = [path for folder, names in TRAINED.items() for name in names for path in find(packages, folder, name)]
    count = 0
    for path in [p for p in paths if p not in kept and label(p) not in NEVER] + list(extra):
        image = Image.open(path).convert('RGB')
        scale = SHORT_SIDE / min(image.size)
        if scale < 1:
            image = image.resize([round(side * scale) for side in image.size], Image.LANCZOS)
        count += 1
        image.save(f'{trained}/{count:03}-{label(path)}.webp', quality=88, method=6)
    print(f'{len(kept)} held out, {count} to train on')


if __name__ == '__main__':
    main(*sys.argv[1:])
