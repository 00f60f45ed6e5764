#!/usr/bin/env python3
"""Writes the seeds of the fuzz harnesses (corpus/*/seed-*) and small-spiece.model. Inputs that once failed are kept
beside them by hand, under other names.

usage: tests/fuzz/make_corpus.py
"""
import json, struct
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEMO = HERE.parent.parent / 'examples' / 'demo-model' / 'checkpoint'
GOLDEN = HERE.parent / 'golden' / 'tokens'


def put(harness, name, data):
    path = HERE / 'corpus' / harness / f'seed-{name}'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def text(value):
    return json.dumps(value, separators=(',', ':')).encode()


# ---- api: lines as fuzz-api.c says ----

def make_api():
    put('api', 'edit', b'prompt=make it night\no\nl\ne 1 64 64 3 0\ne 2 64 48 4 0\na\n')
    put('api', 'sizes', b'o\ns 65535 65535\ns 0 1\ns 1 65536\nw 65535 65535\nsize-mode=native\ns 4 4000\nw 1 1\nmax-area=1\nw 64 64\n')
    put('api', 'plan', b'p 64 64 2\np 64 64 4\np 0 0 2\np 64 64 3\nscheduler=heun\np 1024 768 4\ntask=generate\np 64 64 2\n')
    for i in range(11):
        put('api', f'fault-{i:02}', f'o\nb\nprompt=x\ne 2 64 64 4 {1 << i}\ntask=generate\ne 2 64 64 4 {1 << i}\n'.encode())
    put('api', 'caches', b'o\nsteps=6\nstep-cache=first-block\nstep-cache-mask=101010\ne 1 64 64 3 0\nstep-cache-mask\nstep-cache-back=9\n'
                         b'e 1 64 64 3 0\nstep-cache-back\ntoken-merge=0.5\ne 1 64 64 3 0\ntoken-merge\ncontext-reuse=2\ne 1 64 64 3 0\n')
    put('api', 'cfg', b'o\nnegative-prompt=x\ntrue-cfg-scale=2\ne 2 64 64 3 0\nprompt-cache=off\ne 1 64 64 3 0\ni\nc\n')
    put('api', 'limits', b'max-vram=1\no\nmax-vram=30000000\no\ne 1 64 64 3 0\nmax-vram=40000000\no\ne 1 64 64 3 0\nl\n')
    put('api', 'profile', b'o\nr 64 64\ntrace-file=x\ne 1 64 64 3 0\nsteps=200\nr 64 64\n')
    put('api', 'numbers', b'e -1 64 64 3 0\no\ne -1 64 64 3 0\ne 257 64 64 3 0\ne 0 0 0 0 0\ne 1 64 64 0 0\ne 1 64 64 5 0\ne 1 -5 64 3 0\n')
    put('api', 'values', 'seed=-1\nseed=18446744073709551615\nsteps=1e2\nsteps=2000\nguidance=nan\nprompt=\xff\nscheduler=é\nnothing=1\n'
                         'preset=fast\npreset\nmax-area=4194304\ncontext-reuse=-1\nvae-slicing=off\nc\ni\n'.encode('latin-1'))
    put('api', 'shared', b'n\no\nthreads=3\no\ncuda-device-id=7\npreset=exact\no\nn\no\na\n')


# ---- gguf ----

def gguf(tensors, pairs=b'', n_pairs=0, alignment=32):
    """tensors: (name, dims innermost first, type, bytes)."""
    word = lambda s: struct.pack('<Q', len(s)) + s.encode()
    head, data = b'GGUF' + struct.pack('<IQQ', 3, len(tensors), n_pairs) + pairs, b''
    for name, dims, kind, size in tensors:
        head += word(name) + struct.pack(f'<I{len(dims)}QIQ', len(dims), *dims, kind, len(data))
        data += bytes(i % 251 for i in range(size)) + bytes(-size % alignment)
    return head + bytes(-len(head) % alignment) + data


def make_gguf():
    word = lambda s: struct.pack('<Q', len(s)) + s.encode()
    blocks = {0: (1, 4), 1: (1, 2), 30: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 10: (256, 84),
              11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 20: (32, 18), 23: (256, 136)}
    put('gguf', 'types', gguf([(f'l.{k}.weight', [v, 2], k, 2 * b) for k, (v, b) in blocks.items()]))
    pairs = word('general.architecture') + struct.pack('<I', 8) + word('flux')
    pairs += word('general.alignment') + struct.pack('<II', 4, 64)
    pairs += word('words') + struct.pack('<IIQ', 9, 8, 2) + word('a') + word('b')
    pairs += word('numbers') + struct.pack('<IIQ3f', 9, 6, 3, 1, 2, 3)
    put('gguf', 'pairs', gguf([('x.weight', [4, 3], 0, 48), ('x.bias', [3], 0, 12)], pairs, 4, 64))
    put('gguf', 'empty', gguf([]))


# ---- safetensors ----

def safetensors(header, data=b''):
    header = header if isinstance(header, bytes) else text(header)
    return struct.pack('<Q', len(header)) + header + data


def tensor(dtype, shape, begin, end):
    return {'dtype': dtype, 'shape': shape, 'data_offsets': [begin, end]}


def make_safetensors():
    types = {'F64': 8, 'F32': 4, 'F16': 2, 'BF16': 2, 'I64': 8, 'I32': 4, 'I16': 2, 'I8': 1, 'U64': 8, 'U32': 4, 'U16': 2,
             'U8': 1, 'BOOL': 1, 'F8_E4M3': 1, 'F8_E5M2': 1, 'F8_E8M0': 1, 'C64': 8}
    header, at = {'__metadata__': {'format': 'pt', 'note': 'é \\ " /'}}, 0
    for name, size in types.items():
        header[f'layer.{name}.weight'] = tensor(name, [2, 3], at, at + 6 * size)
        at += 6 * size
    put('safetensors', 'types', safetensors(header, bytes(at)))
    put('safetensors', 'small', safetensors({'a': tensor('F32', [], 0, 4), 'e': tensor('I8', [0, 7], 4, 4)}, bytes(4)))
    put('safetensors', 'backwards', safetensors({'a': tensor('U8', [4], 4, 8), 'b': tensor('F4', [8], 0, 4)}, bytes(8)))
    put('safetensors', 'empty', safetensors(b'{}'))
    put('safetensors', 'spaces', safetensors(b'{ "a\\u00e9\\ud83d\\ude00" :\t{"shape":[1 ,2],\n"dtype":"U8","data_offsets":[0,2]} }  ',
                                             b'xy'))
    lora = {f'transformer.transformer_blocks.0.attn.to_q.lora_{s}.weight': tensor('BF16', [2, 2], 8 * i, 8 * i + 8)
            for i, s in enumerate('AB')}
    lora['__metadata__'] = {'lora_adapter_metadata': '{"transformer.r":2}'}
    put('safetensors', 'lora', safetensors(lora, bytes(16)))
    put('safetensors', 'hole', safetensors({'a': tensor('U8', [1], 1, 2)}, b'xy'))
    put('safetensors', 'huge', safetensors({'a': tensor('F32', [1 << 62, 4], 0, 0)}))
    put('safetensors', 'long', struct.pack('<Q', 1 << 63) + b'{}')


# ---- packed models ----

def fk_sum(data):
    """core/files/sum.c."""
    lanes, mask = list(range(64)), 0xffffffff
    state, data = len(data), data + bytes(-len(data) % 256)
    for at in range(0, len(data), 256):
        for i, word in enumerate(struct.unpack_from('<64I', data, at)):
            x = (lanes[i] ^ word) * 0x9e3779b1 & mask
            lanes[i] = (x << 13 | x >> 19) & mask
    for lane in lanes:
        state = (state ^ lane) * 0x9e3779b97f4a7c15 & (1 << 64) - 1
        state = (state << 29 | state >> 35) & (1 << 64) - 1
    return state


def packed(files, form='3', sums=None, options='quantization=none\n'):
    """The harness makes the header's own sum."""
    header, data = {}, b''
    for name, content in files.items():
        header[name] = {'dtype': 'U8', 'shape': [len(content)], 'data_offsets': [len(data), len(data) + len(content)]}
        data += content
    digits = ''.join(f'{fk_sum(c):016x}' for c in files.values() if c) if sums is None else sums
    meta = {f'fluxkontext.{k}': v for k, v in (('pack', form), ('version', '0.1.0'), ('values', 'float32'),
                                               ('options', options), ('sums', digits), ('header', '0' * 16))}
    return safetensors({'__metadata__': meta, **header}, data)


def make_pack():
    files = {'files/model_index.json': b'{"_class_name":"FluxKontextPipeline"}', 'files/vae/config.json': b'{}',
             'transformer/x': bytes(range(256)) * 3, 'pad/x': bytes(5)}
    put('pack', 'whole', packed(files))
    put('pack', 'empty', packed({'transformer/x': b''}))
    put('pack', 'damaged', packed(files, sums='0' * 64))
    put('pack', 'few-sums', packed(files, sums='0' * 48))
    put('pack', 'odd-sums', packed(files, sums='x' * 70))
    put('pack', 'older', packed(files, form='2'))
    put('pack', 'options', packed(files, options='quantization=fp8\nquantization=\nweight-dither=maybe\n=\n' + 'a=b\n' * 99))
    put('pack', 'other-type', packed(files).replace(b'"dtype":"U8","shape":[768]', b'"dtype":"F32","shape":[192]'))


# ---- configurations ----

CONFIGS = ['model_index.json', 'transformer/config.json', 'vae/config.json', 'text_encoder/config.json',
           'text_encoder_2/config.json', 'scheduler/scheduler_config.json', 'tokenizer/tokenizer_config.json',
           'tokenizer_2/tokenizer_config.json']


def make_configs():
    for i, name in enumerate(CONFIGS):
        file = DEMO / name
        value = json.loads(file.read_text()) if file.exists() else {'model_max_length': 64}
        put('config', f'{i}-{name.replace("/", "-")}', bytes([i]) + text(value))
    vae = json.loads((DEMO / 'vae/config.json').read_text())
    put('config', '2-vae-blocks', bytes([2]) + text(dict(vae, layers_per_block=7)))
    put('config', '2-vae-tile', bytes([2]) + text(dict(vae, sample_size=12)))
    flux = json.loads((DEMO / 'transformer/config.json').read_text())
    put('config', '1-axes', bytes([1]) + text(dict(flux, axes_dims_rope=[32, 32, 64])))
    put('config', '6-no-limit', bytes([6]) + text({'model_max_length': int(1e30)}))
    put('config', '8-index', bytes([8]) + text({'metadata': {'total_size': 2}, 'weight_map': {'a': '1', 'b': '2'}}))
    put('config', '8-swapped', bytes([8]) + text({'weight_map': {'a': '2', 'b': '1'}}))
    put('config', '8-elsewhere', bytes([8]) + text({'weight_map': {'a': '../1', 'b': '2'}}))


# ---- tokenizers ----

def varint(n):
    out = b''
    while n > 0x7f:
        out, n = out + bytes([n & 0x7f | 0x80]), n >> 7
    return out + bytes([n])


def field(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def piece(string, score, kind):
    return field(1, field(1, string.encode()) + b'\x15' + struct.pack('<f', score) + b'\x18' + varint(kind))


def charsmap():
    """A double array of two keys: "a" becomes "bb", "c" becomes nothing."""
    units = [0] * 256
    units[0] = 0x80 << 10
    for key, place in ((b'a', 0), (b'c', 3)):
        at = 0x80 ^ key[0]
        units[at] = 1 << 10 | 0x100 | key[0]
        units[at ^ 1] = 0x80000000 | place
    return struct.pack('<I', 1024) + struct.pack('<256I', *units) + b'bb\0\0'


def spiece(more=b''):
    pieces = [('<pad>', 0, 3), ('</s>', 0, 3), ('<unk>', 0, 2)]
    pieces += [('\u2581', -3, 1), ('\u2581a', -2, 1), ('a', -4, 1), ('b', -4, 1), ('bb', -3, 1), ('\u2581make', -2, 1),
               ('k', -5, 1), ('é', -6, 1), ('日', -6, 1), ('<extra_id_0>', 0, 4)]
    out = b''.join(piece(*p) for p in pieces)
    trainer = b'\x18\x01' + b'\xe0\x02' + varint(13)
    return out + field(2, trainer + more) + field(3, field(1, b'nmt_nfkc') + field(2, charsmap()))


def make_tokenizers():
    (HERE / 'small-spiece.model').write_bytes(spiece())
    token = {'content': '<new>', 'normalized': True, 'special': True, 'single_word': False}
    roles = {'bos_token': '<|startoftext|>', 'eos_token': {'content': '<|endoftext|>', 'lstrip': False},
             'pad_token': None, 'additional_special_tokens': ['<|endoftext|>']}
    demo = DEMO / 'tokenizer'
    put('tokenizer', '0-vocab', b'\0' + text(json.loads((demo / 'vocab.json').read_text())))
    put('tokenizer', '1-merges', b'\1' + (demo / 'merges.txt').read_bytes()[:900])
    put('tokenizer', '2-config', b'\2' + text({'added_tokens_decoder': {'1083': token, '1082': {'content': '<|endoftext|>'}}}))
    put('tokenizer', '2-roles', b'\2' + text(roles))
    put('tokenizer', '3-map', b'\3' + text(roles))
    put('tokenizer', '4-json', b'\4' + text({'model': {'vocab': {'a': 1}}, 'added_tokens': [dict(token, id=2000)]}))
    put('tokenizer', '5-spiece', b'\5' + spiece())
    put('tokenizer', '5-inputs', b'\5' + spiece(field(1, b'input') * 3))
    put('tokenizer', '5-byte-model', b'\5' + spiece().replace(b'\x18\x01\xe0', b'\x18\x02\xe0'))
    put('tokenizer', '6-config', b'\6' + text({'extra_ids': 4, 'eos_token': '</s>', 'added_tokens_decoder': {'300': token}}))
    put('tokenizer', '7-map', b'\7' + text({'eos_token': '</s>', 'unk_token': '<unk>', 'pad_token': '<pad>'}))
    put('tokenizer', '8-json', b'\x08' + text({'added_tokens': [dict(token, id=300), {'content': '</s>', 'id': 1}]}))


def make_prompts():
    prompts = ['', 'make it night', "Don't I'd've WE'LL 'S", 'a<|endoftext|>b<|startoftext|></s><extra_id_7>',
               '<|STARTOFTEXT|><|endofText|>', '\u0301\u0327a\u0323\u0301 \u1e9b\u0323 \uac00\u1100\u1161\u11a8',
               '\ufdfa\u00bd\u2460\uff21 \u2581x\u2581', '\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea',
               '\u0915\u094d\u0937 \u200d\u200c\u00a0\u3000\u2028', 'İıſK \u03a3\u03c3\u03c2', '日本語 שלום مرحبا',
               'x' * 300, 'word ' * 120, '! ? ... 1234 ²³', '\u11938\u11935\u11930']
    for i, prompt in enumerate(prompts):
        put('prompt', f'{i:02}', prompt.encode())
    put('prompt', 'bad-utf8', b'a\xc3(\xed\xa0\x80')


# ---- adapters of the small model in fuzz-lora.c ----

def adapter(*tensors, dtype='F32', metadata=None):
    """(name, shape) of each; their numbers are small."""
    header, at = {'__metadata__': metadata} if metadata else {}, 0
    size = {'F32': 4, 'F16': 2, 'BF16': 2, 'F8_E4M3': 1}[dtype]
    for name, shape in tensors:
        n = size
        for dim in shape:
            n *= dim
        header[name] = tensor(dtype, list(shape), at, at + n)
        at += n
    return safetensors(header, struct.pack('<f', .5) * (at // 4) + bytes(at % 4))


def make_adapters():
    q, qkv, one = 'transformer.transformer_blocks.0.attn.to_q', 'lora_unet_double_blocks_0_img_attn_qkv', 'diffusion_model.single_blocks.0.linear1'
    te1, te3 = 'lora_te1_text_model_encoder_layers_0_self_attn_q_proj', 'lora_te3_encoder_block_0_layer_0_SelfAttention_q'
    pair = [(q + '.lora_A.weight', (2, 8)), (q + '.lora_B.weight', (8, 2))]
    put('lora', 'peft', adapter(*pair, metadata={'lora_adapter_metadata': '{"transformer.lora_alpha": 4, "transformer.use_rslora": true}'}))
    put('lora', 'peft-half', adapter(*pair[:1]))
    put('lora', 'dora', adapter(*pair, (q + '.lora_magnitude_vector', (8,)), dtype='BF16'))
    put('lora', 'dora-columns', adapter(*pair, (q + '.dora_scale', (1, 8))))
    put('lora', 'kohya', adapter((qkv + '.lora_down.weight', (2, 8, 1, 1)), (qkv + '.lora_up.weight', (24, 2, 1, 1)), (qkv + '.alpha', ())))
    put('lora', 'comfy', adapter((one + '.lora_A.weight', (3, 8)), (one + '.lora_B.weight', (56, 3)), dtype='F16'))
    put('lora', 'lokr', adapter((one + '.lokr_w1', (7, 2)), (one + '.lokr_w2_a', (8, 2)), (one + '.lokr_w2_b', (2, 4)), (one + '.alpha', (1,))))
    put('lora', 'loha', adapter((q + '.hada_w1_a', (8, 2)), (q + '.hada_w1_b', (2, 8)), (q + '.hada_w2_a', (8, 2)), (q + '.hada_w2_b', (2, 8))))
    put('lora', 'xlabs', adapter(('single_blocks.0.processor.proj_lora.down.weight', (2, 8)), ('single_blocks.0.processor.proj_lora.up.weight', (8, 2))))
    put('lora', 'final', adapter(('lora_unet_final_layer_adaLN_modulation_1.lora_down.weight', (1, 8)),
                                 ('lora_unet_final_layer_adaLN_modulation_1.lora_up.weight', (16, 1))))
    put('lora', 'text', adapter((te1 + '.lora_down.weight', (1, 8)), (te1 + '.lora_up.weight', (8, 1)), (te1 + '.diff_b', (8,)),
                                (te3 + '.lora_down.weight', (1, 8)), (te3 + '.lora_up.weight', (8, 1)), ('bundle_emb.x', (1,)), dtype='F8_E4M3'))
    put('lora', 'described', b'm' + bytes([26, 0, 0, 0, 4, 1, 4, 0, 0, 0, 1, 0, 2, 4, 1, 0]) + b'\0\0\0?')


make_api()
make_gguf()
make_safetensors()
make_pack()
make_adapters()
make_configs()
make_tokenizers()
make_prompts()
