#!/usr/bin/env python3
"""Writes a diffusers checkpoint's weights as the single files that people have. Standard library only.

usage: rewrite-model.py CHECKPOINT OUT

OUT gets diffusers.safetensors bfl.safetensors bfl-f32.safetensors comfy.safetensors flux.gguf flux-f32.gguf (transformer),
ae.safetensors ae-f32.safetensors, clip.safetensors clip-f32.safetensors, t5.safetensors t5-f32.safetensors t5.gguf,
all.safetensors (everything in one), and folder/, the checkpoint with the autoencoder's scaling of FLUX.1.
"""
import json, os, re, shutil, struct, sys
from pathlib import Path

SIZE = {'F32': 4, 'BF16': 2}


def read(path):
    data = path.read_bytes()
    n, = struct.unpack_from('<Q', data)
    for name, t in json.loads(data[8:8 + n]).items():
        if name == '__metadata__': continue
        a, b = t['data_offsets']
        yield name, (t['dtype'], t['shape'], data[8 + n + a:8 + n + b])


def part(folder):
    return {name: t for path in sorted(folder.glob('*.safetensors')) for name, t in read(path)}


def write(path, tensors):
    header, at = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {'dtype': dtype, 'shape': shape, 'data_offsets': [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    with open(path, 'wb') as f:
        f.write(struct.pack('<Q', len(text)) + text)
        for dtype, shape, data in tensors.values(): f.write(data)


def text(s):
    return struct.pack('<Q', len(s)) + s.encode()


def write_gguf(path, tensors):
    out, at = b'GGUF' + struct.pack('<IQQ', 3, len(tensors), 1), 0
    out += text('general.architecture') + struct.pack('<I', 8) + text('flux')
    for name, (dtype, shape, data) in tensors.items():
        out += text(name) + struct.pack(f'<I{len(shape)}Q', len(shape), *shape[::-1])
        out += struct.pack('<IQ', {'F32': 0, 'BF16': 30}[dtype], at)
        at += (len(data) + 31) // 32 * 32
    with open(path, 'wb') as f:
        f.write(out + bytes(-len(out) % 32))
        for dtype, shape, data in tensors.values(): f.write(data + bytes(-len(data) % 32))


def f32(t):
    dtype, shape, data = t
    if dtype == 'F32': return t
    wide = bytearray(2 * len(data))
    wide[2::4], wide[3::4] = data[0::2], data[1::2]
    return 'F32', shape, bytes(wide)


def wide(tensors):
    return {name: f32(t) for name, t in tensors.items()}


def stack(tensors, names):
    parts = [tensors.pop(n) for n in names]
    return parts[0][0], [sum(p[1][0] for p in parts)] + parts[0][1][1:], b''.join(p[2] for p in parts)


def swap(t):
    half = len(t[2]) // 2
    return t[0], t[1], t[2][half:] + t[2][:half]


def bfl(tensors):
    """Black Forest Labs' names: fused rows, the last modulation's halves the other way round."""
    left, out = dict(tensors), {}
    for end in ('weight', 'bias'):
        for i in range(1000):
            t = f'transformer_blocks.{i}.attn.'
            if f'{t}to_q.{end}' not in left: break
            d = f'double_blocks.{i}.'
            out[f'{d}img_attn.qkv.{end}'] = stack(left, [f'{t}to_{c}.{end}' for c in 'qkv'])
            out[f'{d}txt_attn.qkv.{end}'] = stack(left, [f'{t}add_{c}_proj.{end}' for c in 'qkv'])
        for i in range(1000):
            t = f'single_transformer_blocks.{i}.'
            if f'{t}proj_mlp.{end}' not in left: break
            names = [f'{t}attn.to_{c}.{end}' for c in 'qkv'] + [f'{t}proj_mlp.{end}']
            out[f'single_blocks.{i}.linear1.{end}'] = stack(left, names)
        out[f'final_layer.adaLN_modulation.1.{end}'] = swap(left.pop(f'norm_out.linear.{end}'))
    rules = [(r'^x_embedder', 'img_in'), (r'^context_embedder', 'txt_in'), (r'^proj_out', 'final_layer.linear'),
             (r'^time_text_embed\.timestep_embedder', 'time_in'), (r'^time_text_embed\.text_embedder', 'vector_in'),
             (r'^time_text_embed\.guidance_embedder', 'guidance_in'), (r'\.linear_1\.', '.in_layer.'),
             (r'\.linear_2\.', '.out_layer.'), (r'^single_transformer_blocks\.(\d+)\.proj_out', r'single_blocks.\1.linear2'),
             (r'^single_transformer_blocks\.(\d+)\.norm\.linear', r'single_blocks.\1.modulation.lin'),
             (r'^single_transformer_blocks\.(\d+)\.attn\.norm_q\.weight', r'single_blocks.\1.norm.query_norm.scale'),
             (r'^single_transformer_blocks\.(\d+)\.attn\.norm_k\.weight', r'single_blocks.\1.norm.key_norm.scale'),
             (r'^transformer_blocks\.', 'double_blocks.'), (r'\.norm1\.linear', '.img_mod.lin'),
             (r'\.norm1_context\.linear', '.txt_mod.lin'), (r'\.attn\.to_out\.0', '.img_attn.proj'),
             (r'\.attn\.to_add_out', '.txt_attn.proj'), (r'\.attn\.norm_q\.weight', '.img_attn.norm.query_norm.scale'),
             (r'\.attn\.norm_k\.weight', '.img_attn.norm.key_norm.scale'),
             (r'\.attn\.norm_added_q\.weight', '.txt_attn.norm.query_norm.scale'),
             (r'\.attn\.norm_added_k\.weight', '.txt_attn.norm.key_norm.scale'), (r'\.ff\.net\.0\.proj', '.img_mlp.0'),
             (r'\.ff\.net\.2', '.img_mlp.2'), (r'\.ff_context\.net\.0\.proj', '.txt_mlp.0'),
             (r'\.ff_context\.net\.2', '.txt_mlp.2')]
    return out | renamed(left, rules)


def renamed(tensors, rules):
    out = {}
    for name, t in tensors.items():
        for pattern, to in rules: name = re.sub(pattern, to, name)
        assert name not in out, name
        out[name] = t
    return out


def ldm(tensors):
    out = {}
    for name, (dtype, shape, data) in tensors.items():
        if re.search(r'attentions\.0\.to_(q|k|v|out\.0)\.weight', name): shape = shape + [1, 1]
        name = re.sub(r'up_blocks\.(\d)', lambda m: f'up.{3 - int(m[1])}', name)
        for pattern, to in [(r'down_blocks\.', 'down.'), (r'\.resnets\.', '.block.'), (r'downsamplers\.0', 'downsample'),
                            (r'upsamplers\.0', 'upsample'), (r'mid_block\.block\.0', 'mid.block_1'),
                            (r'mid_block\.block\.1', 'mid.block_2'), (r'mid_block\.attentions\.0\.group_norm', 'mid.attn_1.norm'),
                            (r'mid_block\.attentions\.0\.to_out\.0', 'mid.attn_1.proj_out'),
                            (r'mid_block\.attentions\.0\.to_', 'mid.attn_1.'), (r'conv_shortcut', 'nin_shortcut'),
                            (r'conv_norm_out', 'norm_out')]:
            name = re.sub(pattern, to, name)
        out[name] = dtype, shape, data
    return out


def llama(tensors):
    return renamed(tensors, [(r'^shared', 'token_embd'), (r'^encoder\.final_layer_norm', 'enc.output_norm'),
                             (r'^encoder\.block\.(\d+)\.layer\.', r'enc.blk.\1.'),
                             (r'0\.SelfAttention\.relative_attention_bias', 'attn_rel_b'),
                             (r'0\.SelfAttention\.', 'attn_'), (r'0\.layer_norm', 'attn_norm'),
                             (r'1\.layer_norm', 'ffn_norm'), (r'1\.DenseReluDense\.wi_0', 'ffn_gate'),
                             (r'1\.DenseReluDense\.wi_1', 'ffn_up'), (r'1\.DenseReluDense\.wo', 'ffn_down')])


def prefixed(prefix, tensors):
    return {prefix + name: t for name, t in tensors.items()}


def main(checkpoint, out):
    flux, vae = part(checkpoint / 'transformer'), part(checkpoint / 'vae')
    clip, t5 = part(checkpoint / 'text_encoder'), part(checkpoint / 'text_encoder_2')
    out.mkdir(parents=True, exist_ok=True)
    write(out / 'diffusers.safetensors', flux)
    write(out / 'bfl.safetensors', bfl(flux))
    write(out / 'bfl-f32.safetensors', wide(bfl(flux)))
    write(out / 'comfy.safetensors', prefixed('model.diffusion_model.', bfl(flux)))
    write_gguf(out / 'flux.gguf', bfl(flux))
    write_gguf(out / 'flux-f32.gguf', wide(bfl(flux)))
    write(out / 'ae.safetensors', ldm(vae))
    write(out / 'ae-f32.safetensors', wide(ldm(vae)))
    write(out / 'clip.safetensors', clip)
    write(out / 'clip-f32.safetensors', wide(prefixed('text_encoders.clip_l.transformer.', clip)))
    write(out / 't5.safetensors', t5)
    write(out / 't5-f32.safetensors', wide(t5))
    write_gguf(out / 't5.gguf', llama(t5))
    everything = prefixed('model.diffusion_model.', bfl(flux)) | prefixed('vae.', ldm(vae))
    everything |= prefixed('text_encoders.clip_l.transformer.', clip)
    everything |= prefixed('text_encoders.t5xxl.transformer.', t5)
    write(out / 'all.safetensors', everything)
    shutil.copytree(checkpoint, out / 'folder', copy_function=os.symlink, dirs_exist_ok=True)
    config = json.loads((checkpoint / 'vae/config.json').read_text())
    config |= {'scaling_factor': 0.3611, 'shift_factor': 0.1159, 'sample_size': 1024}
    (out / 'folder/vae/config.json').unlink()
    (out / 'folder/vae/config.json').write_text(json.dumps(config))


if __name__ == '__main__':
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]))
