#!/usr/bin/env python3
"""Writes files of made-up numbers in the coded forms that people have, in the shapes of a checkpoint. Standard library
only; one stretch of codes is made and repeated, so that a file of full size takes as long as its bytes take to write.

usage: coded-model.py CHECKPOINT OUT FORM...

FORM: a type of GGUF (Q8_0, Q4_K, BF16, ..), F8_E4M3, F8_E5M2 (no scales), fp8 (a scale for each tensor; fp8-new: of another
name; fp8-rows: for each row; fp8-one: it is 1; fp8-mixed: every third matrix has none and is plain), int8 (as fp8), int8-rows, mxfp8, nvfp4, F16, mixed (GGUF of diffusers' names, another type for each tensor). OUT gets FORM-flux.EXT
(transformer, else of Black Forest Labs' names) and FORM-t5.EXT, EXT gguf or safetensors. As in published files, small matrices, embedders and
vectors stay plain, and so does what has rows of no whole blocks.
"""
import importlib.util, json, random, re, struct, sys
from pathlib import Path

spec = importlib.util.spec_from_file_location('rewrite', Path(__file__).resolve().parent / 'rewrite-model.py')
rewrite = importlib.util.module_from_spec(spec)
spec.loader.exec_module(rewrite)

# Values and bytes of a block, GGUF's number, where halves stand in it: the block's scale, and its minimum.
GGUF = {'F32': (1, 4, 0, []), 'F16': (1, 2, 1, [0]), 'BF16': (1, 2, 30, []), 'Q4_0': (32, 18, 2, [0]), 'Q4_1': (32, 20, 3, [0, 2]),
        'Q5_0': (32, 22, 6, [0]), 'Q5_1': (32, 24, 7, [0, 2]), 'Q8_0': (32, 34, 8, [0]), 'Q2_K': (256, 84, 10, [80, 82]),
        'Q3_K': (256, 110, 11, [108]), 'Q4_K': (256, 144, 12, [0, 2]), 'Q5_K': (256, 176, 13, [0, 2]),
        'Q6_K': (256, 210, 14, [208]), 'IQ4_NL': (32, 18, 20, [0]), 'IQ4_XS': (256, 136, 23, [0])}
# The largest code of a block by its scale: what keeps products of random codes about as large as their input.
REACH = {'Q4_0': 8, 'Q4_1': 15, 'Q5_0': 16, 'Q5_1': 31, 'Q8_0': 127, 'Q2_K': 45, 'Q3_K': 128, 'Q4_K': 945, 'Q5_K': 1953,
         'Q6_K': 4096, 'IQ4_NL': 127, 'IQ4_XS': 4064}
FP8 = {'fp8': ('scale_weight', 0.0007), 'fp8-new': ('weight_scale', 0.0007), 'fp8-rows': ('weight_scale', 0.0007),
       'fp8-one': ('scale_weight', 1.0), 'fp8-mixed': ('scale_weight', 0.0007)}
KEPT = re.compile(r'^(x_embedder|context_embedder|time_text_embed\.|norm_out|proj_out)|embed|^shared|relative_attention_bias')
BLOCKS = 1021  # of a stretch


def shapes(folder):
    out = {}
    for path in sorted(folder.glob('*.safetensors')):
        with open(path, 'rb') as f:
            header = json.loads(f.read(struct.unpack('<Q', f.read(8))[0]))
        out |= {name: t['shape'] for name, t in header.items() if name != '__metadata__'}
    return out


def half(x):
    return struct.pack('<e', x)


class Stretch:
    """Codes of one type, of which tensors take pieces from different blocks on."""

    def __init__(self, kind):
        r = random.Random(kind)
        values, size, _, halves = GGUF.get(kind, (1, 1, 0, []))
        if kind in ('BF16', 'F16', 'F32'):
            numbers = [r.gauss(0, 0.04) for _ in range(BLOCKS)]
            pack = {'F32': lambda x: struct.pack('<f', x), 'F16': half, 'BF16': lambda x: struct.pack('<f', x)[2:]}[kind]
            data = b''.join(map(pack, numbers))
        elif kind in GGUF:
            blocks = []
            for i in range(BLOCKS):
                block = bytearray(r.randbytes(size))
                for k, at in enumerate(halves):
                    scale = 0.08 / REACH[kind] * (1 + r.random())
                    block[at:at + 2] = half(-scale * REACH[kind] / 64 if k else scale)
                blocks.append(bytes(block))
            data = b''.join(blocks)
        else:  # codes of 8 or 4 bits; of floats no NaN and no infinity
            data = bytes(c for c in r.randbytes(4 * BLOCKS) if kind == 'I8' or kind == 'F4' or c & 127 < 120)
            size, values = 1, 2 if kind == 'F4' else 1
        self.values, self.size, self.data, self.taken, self.large = values, size, data * 2, 0, {}

    def take(self, shape):
        count = 1
        for n in shape: count *= n
        bytes_ = count // self.values * self.size
        if bytes_ > 1 << 20: # the same for all of a size: a full model is then made in little memory
            if bytes_ not in self.large:
                piece = self.data[:len(self.data) // 2] * 4096
                self.large[bytes_] = (piece * (bytes_ // len(piece) + 1))[:bytes_]
            return self.large[bytes_]
        begin = self.taken * self.size % (len(self.data) // 2)
        self.taken += 367
        piece = self.data[begin:begin + len(self.data) // 2]
        while len(piece) < bytes_ and len(piece) < 1 << 24: piece *= 2
        return (piece * (bytes_ // len(piece) + 1))[:bytes_]


class Model:
    def __init__(self, form):
        self.form, self.stretches, self.index = form, {}, 0

    def take(self, kind, shape):
        if kind not in self.stretches: self.stretches[kind] = Stretch(kind)
        return kind, shape, self.stretches[kind].take(shape)

    def tensor(self, name, shape):
        """The kind of one tensor, its shape and its codes."""
        self.index += 1
        if len(shape) < 2: return 'F32', shape, struct.pack('<f', 1.0 if 'norm' in name and 'bias' not in name else 0.0) * shape[0]
        kind = 'BF16' if self.form == 'fp8-mixed' and self.index % 3 == 0 else 'F8_E4M3' if self.form in FP8 else \
               {'mxfp8': 'F8_E4M3', 'int8': 'I8', 'int8-rows': 'I8', 'nvfp4': 'F4',
                'mixed': list(REACH)[self.index % len(REACH)]}.get(self.form, self.form)
        plain = KEPT.search(name) or shape[1] % GGUF.get(kind, (32,))[0]
        return self.take('BF16' if plain and not kind.startswith('F16') else kind, shape)


def beside(form, name, t, out):
    """Scales of a tensor's codes, as ComfyUI's files name them."""
    kind, (rows, cols), data = t
    stem = name[:-len('weight')]
    f32 = lambda *x: struct.pack(f'<{len(x)}f', *x)
    if kind == 'F8_E4M3' and form in FP8:
        name_, scale = FP8[form]
        out[stem + name_] = ('F32', [rows, 1], f32(scale) * rows) if form == 'fp8-rows' else ('F32', [], f32(scale))
    if kind == 'I8' and form == 'int8': out[stem + 'weight_scale'] = 'F32', [], f32(0.0005)
    if kind == 'I8' and form == 'int8-rows':
        out[stem + 'weight_scale'] = 'F32', [rows, 1], f32(*(0.0003 + i % 31 * 2e-5 for i in range(rows)))
    if kind == 'F8_E4M3' and form == 'mxfp8':
        shape = [-(-rows // 128) * 128, -(-(cols // 32) // 4) * 4]
        codes = bytes(115 + (i * 7 + i // 11) % 3 for i in range(4099))
        out[stem + 'weight_scale'] = 'F8_E8M0', shape, (codes * (shape[0] * shape[1] // len(codes) + 1))[:shape[0] * shape[1]]
    if kind == 'F4':
        shape = [-(-rows // 128) * 128, -(-(cols // 16) // 4) * 4]
        codes = bytes(40 + (i * 5 + i // 13) % 17 for i in range(4099))
        out[stem + 'weight_scale'] = 'F8_E4M3', shape, (codes * (shape[0] * shape[1] // len(codes) + 1))[:shape[0] * shape[1]]
        out[stem + 'weight_scale_2'] = 'F32', [], f32(0.012)
        t = 'U8', [rows, cols // 2], data
    out[name] = t


def write_gguf(path, tensors):
    out, at = b'GGUF' + struct.pack('<IQQ', 3, len(tensors), 0), 0
    for name, (kind, shape, data) in tensors.items():
        out += rewrite.text(name) + struct.pack(f'<I{len(shape)}Q', len(shape), *shape[::-1])
        out += struct.pack('<IQ', GGUF[kind][2], at)
        at += (len(data) + 31) // 32 * 32
    with open(path, 'wb') as f:
        f.write(out + bytes(-len(out) % 32))
        for _, _, data in tensors.values(): f.write(data + bytes(-len(data) % 32))


def stack(tensors, names):
    """As rewrite.stack, of codes of one kind; of several kinds the first's are taken for all."""
    parts = [tensors.pop(n) for n in names]
    model = stack.model
    shape = [sum(p[1][0] for p in parts)] + parts[0][1][1:]
    if len(shape) == 1: return parts[0][0], shape, b''.join(p[2] for p in parts)
    return model.take(parts[0][0], shape)


def main(checkpoint, out, forms):
    out.mkdir(parents=True, exist_ok=True)
    rewrite.stack = stack
    for form in forms:
        ext = 'gguf' if form in GGUF and form != 'F16' or form == 'mixed' else 'safetensors'
        for part, folder, names in (('flux', 'transformer', rewrite.bfl), ('t5', 'text_encoder_2', rewrite.llama)):
            stack.model = model = Model(form)
            tensors = {n: model.tensor(n, s) for n, s in shapes(checkpoint / folder).items()}
            if ext == 'gguf':
                write_gguf(out / f'{form}-{part}.gguf', tensors if form == 'mixed' and part == 'flux' else names(tensors))
                continue
            coded = {}
            for name, t in (rewrite.bfl(tensors) if part == 'flux' else tensors).items():
                if len(t[1]) == 2: beside(form, name, t, coded)
                else: coded[name] = t
            rewrite.write(out / f'{form}-{part}.safetensors', coded)


if __name__ == '__main__':
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]), sys.argv[3:])
