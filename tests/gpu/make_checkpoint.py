# SPDX-License-Identifier: Apache-2.0
"""Writes a random checkpoint of FLUX.1-Kontext-dev's exact shape (34 GB, bfloat16) into a folder, best a RAM disk.

usage: make_checkpoint.py FOLDER [--demo examples/demo-model/checkpoint] [--device cuda]

Scales are those of a trained network as far as a random one can have them: every product keeps the size of its input,
modulations and gates are below one, norm weights near one. Configurations are those of the published model; the
tokenizers are the demo checkpoint's (their ids fit), with the published lengths. About 20 s on a GPU machine.
"""
import argparse
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import torch
from safetensors.torch import save_file

D, FF = 3072, 12288


def transformer():
    shapes = {'x_embedder': (D, 64), 'context_embedder': (D, 4096), 'proj_out': (64, D), 'norm_out.linear': (2 * D, D)}
    for name, width in (('timestep_embedder', 256), ('guidance_embedder', 256), ('text_embedder', 768)):
        shapes[f'time_text_embed.{name}.linear_1'] = (D, width)
        shapes[f'time_text_embed.{name}.linear_2'] = (D, D)
    norms = []
    for i in range(19):
        p = f'transformer_blocks.{i}.'
        for n in ('norm1.linear', 'norm1_context.linear'):
            shapes[p + n] = (6 * D, D)
        for n in ('to_q', 'to_k', 'to_v', 'add_q_proj', 'add_k_proj', 'add_v_proj', 'to_out.0', 'to_add_out'):
            shapes[p + 'attn.' + n] = (D, D)
        for n in ('ff', 'ff_context'):
            shapes[p + n + '.net.0.proj'], shapes[p + n + '.net.2'] = (FF, D), (D, FF)
        norms += [p + 'attn.' + n for n in ('norm_q', 'norm_k', 'norm_added_q', 'norm_added_k')]
    for i in range(38):
        p = f'single_transformer_blocks.{i}.'
        shapes[p + 'norm.linear'], shapes[p + 'proj_mlp'], shapes[p + 'proj_out'] = (3 * D, D), (FF, D), (D, D + FF)
        for n in ('to_q', 'to_k', 'to_v'):
            shapes[p + 'attn.' + n] = (D, D)
        norms += [p + 'attn.' + n for n in ('norm_q', 'norm_k')]
    out = {}
    for name, shape in shapes.items():
        out[name + '.weight'], out[name + '.bias'] = shape, shape[:1]
    out.update({n + '.weight': (128,) for n in norms})
    return out


def clip():
    out = {'text_model.embeddings.token_embedding.weight': (49408, 768),
           'text_model.embeddings.position_embedding.weight': (77, 768),
           'text_model.final_layer_norm.weight': (768,), 'text_model.final_layer_norm.bias': (768,)}
    for i in range(12):
        p = f'text_model.encoder.layers.{i}.'
        for n, shape in (('self_attn.q_proj', (768, 768)), ('self_attn.k_proj', (768, 768)),
                         ('self_attn.v_proj', (768, 768)), ('self_attn.out_proj', (768, 768)),
                         ('mlp.fc1', (3072, 768)), ('mlp.fc2', (768, 3072)), ('layer_norm1', (768,)),
                         ('layer_norm2', (768,))):
            out[p + n + '.weight'], out[p + n + '.bias'] = shape, shape[:1]
    return out


def t5():
    out = {'shared.weight': (32128, 4096), 'encoder.final_layer_norm.weight': (4096,),
           'encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight': (32, 64)}
    for i in range(24):
        p = f'encoder.block.{i}.layer.'
        for n in 'qkvo':
            out[f'{p}0.SelfAttention.{n}.weight'] = (4096, 4096)
        out[p + '0.layer_norm.weight'] = out[p + '1.layer_norm.weight'] = (4096,)
        out[p + '1.DenseReluDense.wi_0.weight'] = out[p + '1.DenseReluDense.wi_1.weight'] = (10240, 4096)
        out[p + '1.DenseReluDense.wo.weight'] = (4096, 10240)
    return out


def vae():
    out = {}

    def add(name, shape):
        out[name + '.weight'], out[name + '.bias'] = shape, shape[:1]

    def resnet(name, i, o):
        add(name + '.norm1', (i,)), add(name + '.conv1', (o, i, 3, 3))
        add(name + '.norm2', (o,)), add(name + '.conv2', (o, o, 3, 3))
        if i != o:
            add(name + '.conv_shortcut', (o, i, 1, 1))

    channels = [128, 256, 512, 512]
    for half, order, blocks, io in (('encoder', channels, 2, (3, 32)), ('decoder', channels[::-1], 3, (16, 3))):
        add(half + '.conv_in', (order[0], io[0], 3, 3))
        c = order[0]
        for level, o in enumerate(order):
            kind = 'down' if half == 'encoder' else 'up'
            for j in range(blocks):
                resnet(f'{half}.{kind}_blocks.{level}.resnets.{j}', c, o)
                c = o
            if level < 3:
                add(f'{half}.{kind}_blocks.{level}.{kind}samplers.0.conv', (c, c, 3, 3))
        for j in range(2):
            resnet(f'{half}.mid_block.resnets.{j}', 512, 512)
        a = f'{half}.mid_block.attentions.0.'
        add(a + 'group_norm', (512,))
        for n in ('to_q', 'to_k', 'to_v', 'to_out.0'):
            add(a + n, (512, 512))
        add(half + '.conv_norm_out', (c,)), add(half + '.conv_out', (io[1], c, 3, 3))
    return out


def values(name, shape, g):
    """One random tensor at the scale of its role."""
    x = torch.randn(shape, generator=g, device=g.device)
    if len(shape) == 1:
        norm = 'norm' in name and name.endswith('.weight') and '.linear' not in name
        return 1 + 0.1 * x if norm else 0.02 * x
    fan = x[0].numel()
    if 'embedding' in name or 'shared' in name:
        return x * (1.0 if 'shared' in name else 0.02)
    if 'relative_attention_bias' in name:
        return x
    if 'SelfAttention.q' in name:
        return x * fan ** -0.5 / 8  # T5 scales its queries by the weights
    gain = 0.3 if '.linear.weight' in name else 0.7
    return x * gain * fan ** -0.5


def write(folder, stem, shapes, shards, device, seed):
    os.makedirs(folder, exist_ok=True)
    g = torch.Generator(device).manual_seed(seed)
    total = sum(2 * torch.Size(s).numel() for s in shapes.values())
    parts, size = [{}], 0
    for name, shape in shapes.items():
        if size > total / shards and len(parts) < shards:
            parts.append({})
            size = 0
        parts[-1][name] = values(name, shape, g).to(torch.bfloat16).cpu().contiguous()
        size += 2 * torch.Size(shape).numel()
    names = [f'{stem}-{i + 1:05d}-of-{shards:05d}.safetensors' for i in range(shards)]
    if shards == 1:
        names = [f'{stem}.safetensors']
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda p: save_file(p[1], os.path.join(folder, p[0])), zip(names, parts)))
    if shards > 1:
        weight_map = {k: n for n, p in zip(names, parts) for k in p}
        with open(os.path.join(folder, stem + '.safetensors.index.json'), 'w') as f:
            json.dump({'metadata': {'total_size': total}, 'weight_map': weight_map}, f)


def configure(folder, demo):
    """The demo's JSON files with the published sizes (design: spec 1.2)."""
    def edit(path, **fields):
        with open(os.path.join(demo, path)) as f:
            d = json.load(f)
        d.update(fields)
        os.makedirs(os.path.dirname(os.path.join(folder, path)), exist_ok=True)
        with open(os.path.join(folder, path), 'w') as f:
            json.dump(d, f, indent=1)

    for name in ('tokenizer', 'tokenizer_2', 'scheduler'):
        shutil.copytree(os.path.join(demo, name), os.path.join(folder, name), dirs_exist_ok=True)
    edit('model_index.json')
    edit('tokenizer_2/tokenizer_config.json', model_max_length=512)
    edit('transformer/config.json', num_layers=19, num_single_layers=38, num_attention_heads=24,
         joint_attention_dim=4096, pooled_projection_dim=768)
    edit('vae/config.json', block_out_channels=[128, 256, 512, 512], layers_per_block=2, sample_size=1024,
         scaling_factor=0.3611, shift_factor=0.1159)
    edit('text_encoder/config.json', vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
         num_attention_heads=12, projection_dim=768)
    edit('text_encoder_2/config.json', vocab_size=32128, d_model=4096, d_kv=64, d_ff=10240, num_heads=64, num_layers=24,
         num_decoder_layers=24)


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser()
    parser.add_argument('folder')
    parser.add_argument('--demo', default=f'{here}/../../examples/demo-model/checkpoint')
    parser.add_argument('--device', default='cuda')
    a = parser.parse_args()
    configure(a.folder, a.demo)
    write(f'{a.folder}/vae', 'diffusion_pytorch_model', vae(), 1, a.device, 1)
    write(f'{a.folder}/text_encoder', 'model', clip(), 1, a.device, 2)
    write(f'{a.folder}/text_encoder_2', 'model', t5(), 2, a.device, 3)
    write(f'{a.folder}/transformer', 'diffusion_pytorch_model', transformer(), 3, a.device, 4)


if __name__ == '__main__':
    main()
