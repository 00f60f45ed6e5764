"""Examples with more than one right answer for the judge, made on the GPU: (source image, instruction, edited image).

Local edits add, remove, recolour or replace an object of a photograph, put something else above or below a line across
it, or change all but an object. Global edits change weather, light or style. Open prompts ask for anything. Place, size,
shade, shape of borders, weather and look are drawn at random as far as the instruction leaves them open, so that an
example is one of many answers. Images are float [B, 3, H, W] in 0..1.
"""
import math

import torch
import torch.nn.functional as F

import edits

# What an object may be called. Shapes are drawn by fields(), in this order.
OBJECTS = {
    'ball': ['ball', 'ball', 'sphere'], 'balloon': ['balloon'], 'box': ['box', 'cube'], 'cone': ['cone'], 'can': ['can', 'cylinder'],
    'star': ['star'], 'heart': ['heart'], 'ring': ['ring', 'donut'], 'flower': ['flower'], 'cup': ['cup', 'mug'], 'tree': ['tree'],
    'mushroom': ['mushroom'], 'moon': ['moon'], 'house': ['house', 'hut'], 'fish': ['fish'],
}
OBJECT_NAMES = list(OBJECTS)
SIZES = {'': (.13, .34), 'small': (.1, .15), 'little': (.1, .15), 'big': (.28, .44), 'large': (.28, .44), 'huge': (.36, .5)}
# Parts of an object with a colour of their own.
WOOD, CREAM, YOLK = (.42, .28, .16), (.93, .89, .8), (.98, .8, .2)

LOCAL_WORDING = {
    'add': ['add {a} {place}', 'put {a} {place}', 'place {a} {place}', 'insert {a} {place}', 'show {a} {place}', 'draw {a} {place}',
            'there should be {a} {place}'],
    'remove': ['remove the {old}', 'delete the {old}', 'erase the {old}', 'take the {old} away', 'get rid of the {old}',
               'take out the {old}', 'make the {old} disappear'],
    'recolor': ['make the {old} {new}', 'change the color of the {old} to {new}', 'turn the {old} {new}', 'paint the {old} {new}',
                'recolor the {old} to {new}', 'color the {old} {new}', 'the {old} should be {new}'],
    'replace': ['replace the {old} with {a}', 'turn the {old} into {a}', 'swap the {old} for {a}', 'change the {old} into {a}',
                'change the {old} to {a}', 'put {a} in place of the {old}'],
    'sunset sky': ['add a sunset sky', 'make the sky a sunset', 'put a sunset at the top', 'replace the sky with a sunset'],
    'cloudy sky': ['add clouds', 'put clouds in the sky', 'add a cloudy sky', 'replace the sky with clouds'],
    'starry sky': ['add stars in the sky', 'add a starry sky', 'put stars at the top', 'replace the sky with stars'],
    'water': ['add water at the bottom', 'flood the ground', 'put a lake at the bottom', 'cover the ground with water'],
    'snow ground': ['cover the ground with snow', 'put snow on the ground', 'add snow at the bottom'],
    'grass': ['cover the ground with grass', 'put grass at the bottom', 'add grass on the ground'],
    'sand': ['cover the ground with sand', 'put sand at the bottom', 'add sand on the ground'],
    'blur behind': ['blur the background', 'make the background blurry', 'keep the {old} sharp and blur the rest',
                    'put the background out of focus'],
    'gray behind': ['make the background black and white', 'remove the color from the background', 'keep only the {old} in color'],
    'dark behind': ['make the background darker', 'darken the background', 'make everything but the {old} dark'],
}
GLOBAL_WORDING = {
    'sunset': ['make it sunset', 'add sunset light', 'change {it} to sunset', 'turn {it} into a sunset scene', 'make it golden hour'],
    'snow': ['make it snow', 'turn {it} into winter', 'add snow', 'make it winter', 'let it snow'],
    'rain': ['make it rain', 'add rain', 'make it a rainy day', 'let it rain'],
    'haze': ['make it hazy', 'add haze', 'add a lot of fog', 'make it a foggy morning'],
    'autumn': ['make it autumn', 'turn {it} into autumn', 'give {it} autumn colors', 'change the season to autumn'],
    'starry': ['make it a starry night', 'turn {it} into a starry night', 'make it night with stars', 'add a starry night'],
    'film': ['make {it} an old film', 'make {it} look like an old film', 'give {it} film grain', 'make {it} a faded photo'],
    'lights': ['add lights', 'add bokeh', 'add bokeh lights', 'put soft lights over {it}', 'make it sparkle'],
    'dream': ['make it dreamy', 'add a soft glow', 'make {it} look like a dream', 'give {it} a dreamy glow'],
    'neon': ['make it neon', 'give {it} neon colors', 'make {it} look like neon', 'light {it} with neon'],
    'underwater': ['put {it} under water', 'make it look underwater', 'turn {it} into an underwater scene'],
    'rays': ['add sun rays', 'add rays of light', 'let the sun shine in', 'add a sunbeam'],
}
OPEN_WORDING = ['make {it} more beautiful', 'surprise me', 'make {it} better', 'improve {it}', 'make {it} special', 'change the mood',
                'do something creative', 'make {it} magical', 'make {it} interesting', 'change {it}', 'edit {it}', 'be creative',
                'make {it} different', 'do something with {it}', 'give {it} a new look', 'make {it} a work of art', '']
LOCAL, GLOBAL = list(LOCAL_WORDING), list(GLOBAL_WORDING)
# What an open prompt may lead to.
LOOKS = [*GLOBAL, 'sepia', 'painting', 'saturate', 'warm', 'cool', 'sunset sky', 'starry sky', 'cloudy sky', 'water', 'grass', 'add', 'add']
WEIGHTS = ({name: 1. for name in LOCAL} | {'add': 7., 'remove': 4.5, 'recolor': 4.5, 'replace': 3.5}
           | {name: .8 for name in GLOBAL} | {'open': 6., 'named': 7.})


class JudgePhotos(edits.Photos):
    """Crops that stay natural: only mirrored, turned and stretched a little, and a little lighter or darker."""

    def sample(self, count, generator):
        device = self.pool.device

        def uniform(shape, low, high):
            return torch.empty(shape, device=device).uniform_(low, high, generator=generator)
        x = self.pool[torch.randint(0, len(self.pool), (count,), device=device, generator=generator)].float() / 255
        turn, zoom, flip = uniform((count,), -.12, .12), uniform((count, 2), .75, .98), uniform((count,), 0, 1) < .5
        side = zoom[:, 0] * torch.where(flip, -1., 1.)
        rows = torch.stack([side * torch.cos(turn), -zoom[:, 0] * torch.sin(turn), uniform((count,), -.02, .02),
                            zoom[:, 1] * torch.sin(turn), zoom[:, 1] * torch.cos(turn), uniform((count,), -.02, .02)], 1)
        field = F.affine_grid(rows.view(count, 2, 3), x.shape, align_corners=False)
        turned = F.grid_sample(x, field, mode='bilinear', padding_mode='reflection', align_corners=False)
        x = torch.where(uniform((count, 1, 1, 1), 0, 1) < .5, turned, x)
        return (x * uniform((count, 1, 1, 1), .85, 1.15) * uniform((count, 3, 1, 1), .93, 1.07)).clamp(0, 1)


def capsule(u, v, width, height):
    return torch.maximum(u.abs() - width, v.abs() - height)


def fields(u, v):
    """[(field, depth, field of the part with its own colour or None, that colour)] of OBJECTS; fields are below 0 inside, in
    radii; depth is how far in from the edge the surface faces the viewer, in radii."""
    r, angle = torch.hypot(u, v), torch.atan2(u, -v)
    fold = (torch.remainder(angle + math.pi / 5, 2 * math.pi / 5) - math.pi / 5).abs()
    notch_x, notch_y = .45 * math.cos(math.pi / 5), .45 * math.sin(math.pi / 5)
    star = r - notch_y / (torch.cos(fold) * notch_y + torch.sin(fold) * (1 - notch_x))
    body = (torch.hypot(u / .72, (v + .2) / .8) - 1) * .72
    string = torch.maximum((u - .04 * torch.sin(9 * v)).abs() - .02, (v - .9).abs() - .35)
    hexagon = torch.maximum(u.abs(), u.abs() * .5 + v.abs() * .866) - .85
    cone = torch.maximum(.93 * (u.abs() - .36 * (v + 1)), v - .8)
    can = torch.minimum(capsule(u, v, .6, .75), (torch.hypot(u / .6, (v.abs() - .75) / .2) - 1) * .2)
    lobes = torch.hypot(u.abs() - .42, v + .3) - .5
    point = torch.maximum(.72 * u.abs() + .7 * v - .58, -v - .32)
    heart = -torch.logsumexp(torch.stack([-9 * lobes, -9 * point]), 0) / 9 + .06
    cup = torch.minimum(capsule(u + .15, v, .6, .7), (torch.hypot(u - .45, v) - .38).abs() - .09)
    petals = r - (.62 + .28 * torch.cos(6 * angle))
    crown = torch.minimum(torch.hypot(u, v + .35) - .6, torch.hypot(u.abs() - .35, v + .1) - .42)
    trunk = capsule(u, v - .65, .12, .35)
    cap = torch.maximum(torch.hypot(u, (v + .1) / .85) - .85, v - .05)
    stem = capsule(u, v - .45, .25 + .05 * v, .45)
    crescent = torch.maximum(r - .9, .72 - torch.hypot(u - .42, v + .15))
    roof, walls = torch.maximum(.72 * u.abs() - .62 * (v + 1.05), v - .05), capsule(u, v - .45, .6, .42)
    fish = torch.minimum((torch.hypot(u + .15, v / .6) - .75) * .75, torch.maximum(v.abs() - 1.1 * (u - .35), u - .95))
    minimum = torch.minimum
    return [(r - .95, .95, None, None), (minimum(body, string), .6, string, (.85, .85, .85)), (hexagon, .02, None, None),
            (cone, .6, None, None), (can, .6, None, None), (star, .3, None, None), (heart, .5, None, None),
            ((r - .64).abs() - .28, .28, None, None), (petals, .3, r - .24, YOLK), (cup, .55, None, None),
            (minimum(crown, trunk), .5, torch.maximum(trunk, -crown), WOOD), (minimum(cap, stem), .5, torch.maximum(stem, -cap), CREAM),
            (crescent, .3, None, None), (minimum(roof, walls), .03, torch.maximum(walls, -roof), CREAM),
            (fish, .45, torch.hypot(u + .6, v + .12) - .07, (.05, .05, .05))]


class JudgeMaker(edits.EditMaker):
    """Makes examples of the edits named above on one device."""

    # -- random fields --
    def noise(self, count, cells, channels=1):
        """Smooth, of deviation near one, [count, channels, H, W]; the finest of three octaves has four times the cells."""
        out = torch.zeros(count, channels, self.height, self.width, device=self.device)
        for factor, amount in ((1, .8), (2, .5), (4, .3)):
            n = torch.randn(count, channels, cells * factor, cells * factor, device=self.device, generator=self.generator)
            out += amount * F.interpolate(n, size=(self.height, self.width), mode='bicubic', align_corners=False)
        return out

    def dots(self, count, density, low, high):
        """Points of light, each blurred to `low`..`high` pixels' deviation (one size for all images)."""
        seeds = (self.uniform((count, 1, self.height, self.width), 0, 1) < density).float()
        seeds = seeds * self.uniform(seeds.shape, .4, 1)
        sigma = self.random.uniform(low, high)
        return (edits.gaussian_blur(seeds, sigma) * (2 * math.pi * sigma * sigma)).clamp(0, 1)

    def tone(self, count, low, high):
        """A colour per image between two."""
        low, high = (torch.tensor(c, device=self.device).view(1, 3, 1, 1) for c in (low, high))
        return low + (high - low) * self.uniform((count, 3, 1, 1), 0, 1)

    def choices(self, count, high):
        """Whole numbers that prompts are made of: drawn here, so that nobody waits for the device."""
        return torch.tensor([self.random.randrange(high) for _ in range(count)])

    # -- objects --
    def shade(self, color):
        """RGB of colour indices, one of many shades."""
        return (self.colors[color] * self.uniform((len(color), 1), .82, 1.08) + self.uniform((len(color), 3), -.06, .06)).clamp(0, 1)

    def object(self, count, kind=None, size=None, color=None):
        """One object per image; kind and color are on the host, shape and rgb the same on the device."""
        kind = self.choices(count, len(OBJECTS)) if kind is None else kind
        color = self.choices(count, len(edits.COLORS)) if color is None else color
        low, high = SIZES['']
        radius = self.uniform((count,), low, high) if size is None else size
        return {'kind': kind, 'color': color, 'shape': kind.to(self.device), 'rgb': self.shade(color.to(self.device)),
                'radius': radius, 'turn': self.uniform((count,), -.2, .2),
                'center': self.free_place(radius), 'light': self.uniform((count,), -2.6, -.5), 'shadow': self.uniform((count,), .15, .5)}

    def free_place(self, radius):
        room = (.5 - .75 * radius)[:, None].clamp_min(0)
        return .5 + room * self.uniform((len(radius), 2), -1, 1)

    def layers(self, thing):
        """(colour [B, 3, H, W], coverage [B, 1, H, W], shadow [B, 1, H, W]) of one object per image."""
        short, radius = min(self.height, self.width), thing['radius'][:, None, None]
        dx = ((self.x + .5)[None] - thing['center'][:, 0, None, None]) * self.width / short / radius
        dy = ((self.y + .5)[None] - thing['center'][:, 1, None, None]) * self.height / short / radius
        cos, sin = torch.cos(thing['turn'])[:, None, None], torch.sin(thing['turn'])[:, None, None]
        u, v = dx * cos + dy * sin, dy * cos - dx * sin
        field, depth, own = torch.full_like(u, 9.), torch.ones_like(radius), torch.full_like(u, 9.)
        paint = thing['rgb'][:, :, None, None].expand(-1, -1, *u.shape[1:])
        for index, (f, d, part, part_color) in enumerate(fields(u, v)):
            here = (thing['shape'] == index)[:, None, None]
            field, depth = torch.where(here, f, field), torch.where(here, torch.full_like(depth, d), depth)
            if part is not None:
                own = torch.where(here, part, own)
                paint = torch.where((here & (part < 0))[:, None], paint.new_tensor(part_color).view(1, 3, 1, 1), paint)
        # the surface leans outwards near the edge: its normal follows from the field's slope
        slope_y, slope_x = torch.gradient(torch.where(own < 0, own, field), dim=(1, 2))
        steep = torch.hypot(slope_x, slope_y).clamp_min(1e-6)
        lean = (1 + torch.where(own < 0, own, field) / depth).clamp(0, .98)
        nx, ny = lean * slope_x / steep, lean * slope_y / steep
        for name, across in (('cone', u / (.36 * (v + 1)).clamp_min(.05)), ('can', u / .6), ('cup', (u + .15) / .6)):  # round upright
            here = (thing['shape'] == OBJECT_NAMES.index(name))[:, None, None]
            nx, ny = torch.where(here, across.clamp(-.97, .97), nx), torch.where(here, torch.zeros_like(ny), ny)
        nz = (1 - nx * nx - ny * ny).clamp_min(1e-4).sqrt()
        lx, ly = .7 * torch.cos(thing['light'])[:, None, None], .7 * torch.sin(thing['light'])[:, None, None]
        glow = .38 + .78 * (nx * lx + ny * ly + .7 * nz).clamp_min(0)
        glint = .5 * (nx * lx * .6 + ny * ly * .6 + .85 * nz).clamp(0, 1).pow(24) * (depth > .1)
        faces = torch.where(v < -u.abs() * .577, 1.15, torch.where(u < 0, .85, .55))  # of the box
        glow = torch.where((thing['shape'] == OBJECT_NAMES.index('box'))[:, None, None], faces, glow)
        lid = (thing['shape'] == OBJECT_NAMES.index('can'))[:, None, None] & (torch.hypot(u / .6, (v + .75) / .2) < .95)
        glow = torch.where(lid, torch.full_like(glow, 1.2), glow)
        color = (paint * glow[:, None] + glint[:, None]).clamp(0, 1)
        cover = (.5 - field * radius * short / 1.3).clamp(0, 1)[:, None]
        fall = torch.exp(-((dx - .15) / .9) ** 2 - ((dy - .95) / .22) ** 2)
        return color, cover, (fall * thing['shadow'][:, None, None])[:, None]

    def put(self, x, thing):
        color, cover, shadow = self.layers(thing)
        return torch.lerp(x * (1 - shadow), color, cover)

    def say(self, thing, k, colored=None):
        """'red ball', 'ball': what one object is called."""
        noun = self.random.choice(OBJECTS[OBJECT_NAMES[thing['kind'][k]]])
        colored = self.random.random() < .65 if colored is None else colored
        return f'{edits.COLOR_NAMES[thing["color"][k]]} {noun}' if colored else noun

    @staticmethod
    def article(words):
        return f'an {words}' if words[0] in 'aeio' else f'a {words}'

    # -- local edits --
    def adding(self, count, x=None):
        """Places, sizes and colours are drawn first; the instruction names some of them."""
        x = self.photos.sample(count, self.generator) if x is None else x
        names = [self.random.choice(list(SIZES)) if self.random.random() < .5 else '' for _ in range(count)]
        low, high = (torch.tensor([SIZES[n][i] for n in names], device=self.device) for i in (0, 1))
        thing = self.object(count, size=low + (high - low) * self.uniform((count,), 0, 1))
        places = [self.random.choice([''] + 2 * edits.PLACE_NAMES) for _ in range(count)]
        named = torch.tensor([edits.PLACES.get(p, (.5, .5)) for p in places], device=self.device) + self.uniform((count, 2), -.06, .06)
        is_named = torch.tensor([bool(p) for p in places], device=self.device)[:, None]
        thing['center'] = torch.where(is_named, named, thing['center'])
        prompts = []
        for k in range(count):
            words = ' '.join(w for w in (names[k], self.say(thing, k)) if w)
            prompts.append(' '.join(self.word(self.random.choice(LOCAL_WORDING['add']), a=self.article(words), place=places[k]).split()))
        return x, prompts, self.put(x, thing)

    def another(self, old, items):
        """An index of items per index that is not that one."""
        return (old + 1 + self.choices(len(old), len(items) - 1)) % len(items)

    def object_edit(self, count, name):
        """An edit of the first of one or two objects; a second one is of another kind and colour, and stays."""
        x = self.photos.sample(count, self.generator)
        one = self.object(count)
        two = self.object(count, self.another(one['kind'], OBJECTS), color=self.another(one['color'], edits.COLORS))
        two['radius'] = two['radius'] * .6
        side = torch.where(self.uniform((count,), 0, 1) < .5, -1., 1.)
        pair = (self.uniform((count,), 0, 1) < .35)
        apart = torch.stack([.5 + side * (.5 - .8 * one['radius']), one['center'][:, 1]], 1)
        one['center'] = torch.where(pair[:, None], apart, one['center'])
        two['center'] = torch.stack([.5 - side * (.5 - 1.05 * two['radius']), self.uniform((count,), .25, .75)], 1)
        x = torch.where(pair.view(-1, 1, 1, 1), self.put(x, two), x)
        before = self.put(x, one)
        other = dict(one)
        if name == 'recolor':
            other['color'] = self.another(one['color'], edits.COLORS)
            other['rgb'] = self.shade(other['color'].to(self.device))
        elif name == 'replace':
            other = self.object(count, self.another(one['kind'], OBJECTS))
            other['center'], other['radius'] = one['center'], one['radius'] * self.uniform((count,), .85, 1.2)
        if name == 'remove':
            after = x
        elif name.endswith('behind'):
            after = self.behind(before, one, name.split()[0])
        else:
            after = self.put(x, other)
        prompts = [self.word(self.random.choice(LOCAL_WORDING[name]), old=self.say(one, k), new=edits.COLOR_NAMES[other['color'][k]],
                             a=self.article(self.say(other, k))) for k in range(count)]
        return before, prompts, after

    def behind(self, x, thing, name):
        cover = edits.gaussian_blur(self.layers(thing)[1], .8)
        lum = (x * x.new_tensor([.299, .587, .114])[None, :, None, None]).sum(1, keepdim=True)
        if name == 'blur':
            rest = edits.gaussian_blur(x, self.random.uniform(2.5, 6))
        elif name == 'gray':
            rest = (lum * self.uniform((len(x), 1, 1, 1), .8, 1.15)).clamp(0, 1).expand_as(x)
        else:
            rest = x * self.uniform((len(x), 1, 1, 1), .15, .45)
        return torch.lerp(rest, x, cover)

    def region(self, x, name):
        """Something else above (skies) or below a rough line across the picture."""
        count, above = len(x), name.endswith('sky')
        y = self.y[None, None] + .5
        share = self.uniform((count, 1, 1, 1), .2, .58)
        rough = .035 * self.noise(count, 4)[:, :, self.height // 2:self.height // 2 + 1]
        rough = rough + self.uniform((count, 1, 1, 1), -.15, .15) * self.x[None, None]
        line = (share if above else 1 - share) + rough
        soft = self.uniform((count, 1, 1, 1), .008, .06) if above else .008
        cover = torch.sigmoid((line - y if above else y - line) / soft)
        fine, at = self.noise(count, 24), ((y - line) / (1 - line).clamp_min(.05)).clamp(0, 1)
        if name == 'sunset sky':
            at = (y / line.clamp_min(.05)).clamp(0, 1)
            new = torch.lerp(self.tone(count, (.15, .1, .35), (.45, .3, .6)), self.tone(count, (.95, .4, .1), (1., .75, .4)), at)
            new = new + .12 * at * self.noise(count, 3) * new.new_tensor([1., .5, .3]).view(1, 3, 1, 1)
            sun_x, sun_y = self.uniform((count, 1, 1, 1), -.35, .35), line * self.uniform((count, 1, 1, 1), .6, .95)
            sun = torch.hypot(self.x[None, None] - sun_x, y - sun_y)
            new = torch.lerp(new, new.new_tensor([1., .95, .75]).view(1, 3, 1, 1), torch.sigmoid((.06 - sun) / .012))
        elif name == 'cloudy sky':
            puff = torch.sigmoid(2.2 * (self.noise(count, 3) + self.uniform((count, 1, 1, 1), -.6, .4)))
            new = torch.lerp(self.tone(count, (.25, .45, .75), (.5, .7, .95)), self.tone(count, (.85, .85, .87), (1., 1., 1.)), puff)
        elif name == 'starry sky':
            new = self.tone(count, (.01, .01, .05), (.08, .07, .2)) + .06 * self.noise(count, 3).clamp_min(0)
            new = new + self.dots(count, .004, .6, 1.)
        elif name == 'water':
            mirrored = x.flip(2)
            ripple = self.noise(count, 10)[:, :, :, :1] * .02 + .01 * torch.sin(y * self.uniform((count, 1, 1, 1), 90, 220))
            rows, columns = torch.broadcast_tensors(2 * (y - .5) + 2 * ripple, 2 * self.x[None, None])
            field = torch.stack([columns.expand_as(rows), rows], -1)[:, 0].expand(count, -1, -1, -1)
            mirrored = F.grid_sample(mirrored, field, mode='bilinear', padding_mode='reflection', align_corners=False)
            murk = self.uniform((count, 1, 1, 1), .35, .65)
            new = torch.lerp(mirrored, self.tone(count, (.05, .2, .35), (.3, .5, .6)), murk) + .03 * fine
        else:
            low, high, grain = {'snow ground': ((.85, .88, .93), (.97, .98, 1.), .02), 'grass': ((.15, .35, .08), (.4, .6, .2), .1),
                                'sand': ((.75, .62, .4), (.9, .8, .6), .035)}[name]
            blades = torch.randn(count, 1, self.height, self.width, device=self.device, generator=self.generator)
            new = self.tone(count, low, high) * (.8 + .25 * at) + grain * (.6 * fine + .5 * blades) + .05 * self.noise(count, 3)
        return torch.lerp(x, new.clamp(0, 1), cover)

    # -- global edits --
    def look(self, x, name):
        count, y = len(x), self.y[None, None] + .5
        lum = (x * x.new_tensor([.299, .587, .114])[None, :, None, None]).sum(1, keepdim=True)

        def part(low, high):
            return self.uniform((count, 1, 1, 1), low, high)
        if name == 'sunset':
            light = torch.lerp(self.tone(count, (1.1, .6, .5), (1.4, .85, .9)), self.tone(count, (1., .6, .3), (1.3, .8, .5)), y)
            glow = torch.exp(-(torch.hypot(self.x[None, None] - part(-.45, .45), y - part(.1, .6)) / part(.2, .45)) ** 2)
            out = x * light * part(.7, .95) + glow * self.tone(count, (.4, .2, .02), (.6, .35, .12))
        elif name == 'snow':
            flakes = sum(self.dots(count, density, low, high) for density, low, high in ((.0025, .7, 1.1), (.0006, 1.4, 2.6)))
            cold = part(.1, .25) * x.new_tensor([.95, 1., 1.08]).view(1, 3, 1, 1)
            out = torch.lerp(x, lum.expand_as(x), part(.3, .7)) * part(.75, .95) + cold + .9 * flakes
        elif name == 'rain':
            drops = (self.uniform((count, 1, self.height, self.width), 0, 1) < .006).float()
            length = max(3, self.height * self.random.randint(8, 18) // 256)
            streak = drops
            for _ in range(length):
                streak = torch.maximum(streak.roll((1, self.random.choice((0, 0, 1))), (2, 3)) * .93, drops)
            out = torch.lerp(x, lum.expand_as(x), part(.3, .6)) * self.tone(count, (.5, .55, .65), (.7, .75, .85)) + .28 * streak
        elif name == 'haze':
            veil = (part(.35, .6) + .18 * self.noise(count, 2) + part(-.25, .25) * (y - .5)).clamp(.1, .9)
            out = torch.lerp(x, self.tone(count, (.75, .77, .8), (.92, .92, .92)), veil)
        elif name == 'autumn':
            green = ((x[:, 1:2] - x[:, 2:3]) * 4).clamp(0, 1)
            leaf = lum * self.tone(count, (1.5, .7, .1), (2., 1.1, .4))
            out = torch.lerp(x * self.tone(count, (1.02, .9, .7), (1.15, 1., .85)), leaf, green * part(.6, .95))
        elif name == 'starry':
            dark = torch.lerp(x, lum.expand_as(x), .5) * self.tone(count, (.12, .16, .3), (.25, .32, .55))
            out = dark + self.dots(count, .003, .6, .9) * torch.sigmoid((part(.35, .65) - y) / .06)
        elif name == 'film':
            grain = torch.randn(count, 1, self.height, self.width, device=self.device, generator=self.generator)
            scratch = (self.uniform((count, 1, 1, self.width), 0, 1) < .008).float() * part(-.3, .4)
            edge = (1.1 - part(1., 2.2) * (self.x ** 2 + self.y ** 2)[None, None]).clamp(0, 1)
            out = (lum * self.tone(count, (.85, .75, .6), (1.05, .95, .85)) * part(.75, .95) + .1 + part(.03, .09) * grain + scratch) * edge
        elif name == 'lights':
            spots = 0
            for _ in range(3):
                disc = self.dots(count, .0005, 2.5, 9.)
                spots = spots + torch.sigmoid((disc - .35) * 14) * self.tone(count, (.4, .2, .1), (.9, .8, .7))
            out = x * part(.6, .85) + .55 * spots
        elif name == 'dream':
            soft = edits.gaussian_blur(x, self.random.uniform(4, 8))
            out = 1 - (1 - x * .85) * (1 - soft * self.tone(count, (.4, .35, .4), (.8, .6, .75)))
        elif name == 'neon':
            grain = edits.gaussian_blur(lum, 1.)
            dy, dx = grain.diff(dim=2, prepend=grain[:, :, :1]), grain.diff(dim=3, prepend=grain[:, :, :, :1])
            ramp = torch.sigmoid(3 * (self.noise(count, 1) + part(-.5, .5)))
            hue = torch.lerp(self.tone(count, (.8, .0, .5), (1., .3, 1.)), self.tone(count, (.0, .5, .8), (.3, 1., 1.)), ramp)
            out = lum ** 1.3 * hue * part(.5, .8) + (torch.hypot(dx, dy) * 7).clamp(0, 1) * hue
        elif name == 'underwater':
            caustic = (1 - (self.noise(count, 6)).abs() * 1.6).clamp(0, 1) ** 3
            deep = torch.lerp(x, lum.expand_as(x), .4) * self.tone(count, (.15, .5, .6), (.4, .8, .9))
            out = deep + .16 * caustic * (1 - y) + part(.02, .1) * y
        elif name == 'rays':
            at_x, at_y = part(-.6, .6), part(-.75, -.45)
            angle = torch.atan2(self.x[None, None] - at_x, self.y[None, None] - at_y)
            beams = .5 + .5 * torch.sin(angle * part(9, 24) + part(0, 6)) * torch.sin(angle * part(5, 11) + part(0, 6))
            fade = torch.exp(-torch.hypot(self.x[None, None] - at_x, self.y[None, None] - at_y) * part(1., 2.2))
            out = x * .85 + .85 * beams * fade * self.tone(count, (.8, .65, .35), (1., .95, .75))
        else:
            raise KeyError(name)
        return out.clamp(0, 1)

    def changed(self, x, name):
        """One of LOOKS."""
        if name == 'add':
            return self.adding(len(x), x)[2]
        if name in GLOBAL:
            return self.look(x, name)
        return self.region(x, name) if name in LOCAL else self.apply(x, name)

    # -- all --
    def make(self, count, name):
        """(source, prompts, target) of one kind of edit; 'open' is of many looks."""
        if name == 'open':
            x, pieces = self.photos.sample(count, self.generator), max(1, count // 16)
            y = torch.cat([self.changed(part, self.random.choice(LOOKS)) for part in x.chunk(pieces)])
            return x, [self.word(self.random.choice(OPEN_WORDING)) for _ in range(count)], y
        if name == 'named':
            return self.photo_edit(count, self.random.choice(edits.PHOTO_EDITS), self.photos.sample(count, self.generator))
        if name == 'add':
            return self.adding(count)
        if name in ('remove', 'recolor', 'replace') or name.endswith('behind'):
            return self.object_edit(count, name)
        x = self.photos.sample(count, self.generator)
        wording = LOCAL_WORDING.get(name) or GLOBAL_WORDING[name]
        prompts = [self.word(self.random.choice(wording)) for _ in range(count)]
        return x, prompts, self.changed(x, name)

    def draw(self, count):
        name = self.random.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        source, prompts, target = self.make(count, name)
        return source, [self.loosen(p) if p else p for p in prompts], target
