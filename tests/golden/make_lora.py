# SPDX-License-Identifier: Apache-2.0
"""Writes lora/: adapters of the demo checkpoint and what diffusers and peft make of them in float32 on the CPU.

  second.safetensors   random, rank 4, alpha 8, of a few modules of the transformer
  one.png, two.png     edits by FluxKontextPipeline with the demo's LoRA fused, and with both at weights 0.7 and -0.3
  kinds.safetensors    DoRA by rows and by columns, LoHa, LoKr
  kinds.npy            [4, 32, 256]: the first rows of the four weights with their adapters merged; peft's layers, and of DoRA
                       by columns, which peft has not, its definition

usage: make_lora.py        (from the project's root; a minute on two cores; needs peft)
"""
import os
import sys

import numpy as np
import peft
import torch
from diffusers import FluxKontextPipeline
from PIL import Image
from safetensors.torch import load_file, save_file

HERE = os.path.dirname(os.path.abspath(__file__))
DEMO = os.path.join(HERE, '../../examples/demo-model')
OUT = os.path.join(HERE, 'lora')
sys.path.insert(0, DEMO)
import reference  # noqa: E402

SECOND = {'transformer_blocks.0.attn.to_k': (256, 256), 'transformer_blocks.1.ff.net.0.proj': (1024, 256),
          'single_transformer_blocks.2.proj_mlp': (1024, 256), 'single_transformer_blocks.3.proj_out': (256, 1280),
          'norm_out.linear': (512, 256), 'x_embedder': (256, 64)}
KINDS = [f'transformer_blocks.1.attn.{name}' for name in ('to_q', 'to_k', 'to_v', 'add_q_proj')]


def make_second():
    generator, tensors = torch.Generator().manual_seed(5), {}
    for name, (rows, columns) in SECOND.items():
        tensors[f'transformer.{name}.lora_A.weight'] = torch.randn(4, columns, generator=generator) * .1
        tensors[f'transformer.{name}.lora_B.weight'] = torch.randn(rows, 4, generator=generator) * .1
        tensors[f'transformer.{name}.alpha'] = torch.tensor(8.)
    save_file(tensors, f'{OUT}/second.safetensors')


def edit(pipe, prompt):
    image = Image.open(f'{DEMO}/photos/coffee_256.png').convert('RGB').crop((64, 64, 192, 192))
    return reference.run(pipe, image, prompt, steps=4, seed=0)[0]


def pictures():
    pipe = reference.load(f'{DEMO}/checkpoint')
    pipe.load_lora_weights(f'{DEMO}/cyanotype.safetensors', adapter_name='one')
    pipe.fuse_lora(adapter_names=['one'])
    edit(pipe, 'make it a cyanotype').save(f'{OUT}/one.png')
    pipe = reference.load(f'{DEMO}/checkpoint')
    pipe.load_lora_weights(f'{DEMO}/cyanotype.safetensors', adapter_name='one')
    pipe.load_lora_weights(f'{OUT}/second.safetensors', adapter_name='two')
    pipe.set_adapters(['one', 'two'], [.7, -.3])
    pipe.fuse_lora(adapter_names=['one', 'two'])
    edit(pipe, 'make it a cyanotype').save(f'{OUT}/two.png')


def merged(weight, config):
    """The layer's adapter, and the weight that peft merges."""
    net = torch.nn.Sequential(torch.nn.Linear(256, 256, bias=False))
    net[0].weight.data = weight.clone()
    model = peft.get_peft_model(net, config)
    generator = torch.Generator().manual_seed(9)
    for name, p in model.named_parameters():
        if p.requires_grad and 'magnitude' not in name:
            p.data = torch.randn(p.shape, generator=generator) * .2
        elif p.requires_grad:
            p.data = p.data * (1 + .2 * torch.randn(p.shape, generator=generator))
    state = {name.replace('base_model.model.0.', ''): p.data.clone() for name, p in model.named_parameters() if p.requires_grad}
    return {name.replace('.default', ''): value for name, value in state.items()}, model.merge_and_unload()[0].weight.data


@torch.no_grad()
def kinds():
    weights, tensors, rows = {}, {}, []
    for shard in (1, 2, 3):
        weights |= load_file(f'{DEMO}/checkpoint/transformer/diffusion_pytorch_model-0000{shard}-of-00003.safetensors')
    base = [weights[name + '.weight'].float() for name in KINDS]

    state, result = merged(base[0], peft.LoraConfig(r=4, lora_alpha=2, target_modules=['0'], use_dora=True))
    tensors |= {f'transformer.{KINDS[0]}.{name}': value for name, value in state.items()}
    tensors[f'transformer.{KINDS[0]}.alpha'] = torch.tensor(2.)
    rows.append(result)

    generator = torch.Generator().manual_seed(11)
    down, up = torch.randn(4, 256, generator=generator) * .2, torch.randn(256, 4, generator=generator) * .2
    m = base[1].norm(dim=0, keepdim=True) * (1 + .2 * torch.randn(1, 256, generator=generator))
    flat = 'lora_transformer_' + KINDS[1].replace('.', '_')
    tensors |= {f'{flat}.lora_down.weight': down, f'{flat}.lora_up.weight': up, f'{flat}.alpha': torch.tensor(8.), f'{flat}.dora_scale': m}
    v = base[1].double() + 2 * (up.double() @ down.double())
    rows.append((m.double() * v / v.norm(dim=0, keepdim=True)).float())

    flat = 'lycoris_' + KINDS[2].replace('.', '_')
    state, result = merged(base[2], peft.LoHaConfig(r=4, alpha=2, target_modules=['0']))
    tensors |= {f'{flat}.{name}': value for name, value in state.items()} | {f'{flat}.alpha': torch.tensor(2.)}
    rows.append(result)

    flat = 'lycoris_' + KINDS[3].replace('.', '_')
    state, result = merged(base[3], peft.LoKrConfig(r=4, alpha=2, target_modules=['0'], decompose_factor=8))
    tensors |= {f'{flat}.{name}': value for name, value in state.items()} | {f'{flat}.alpha': torch.tensor(2.)}
    rows.append(result)
    print({name: list(value.shape) for name, value in tensors.items()})
    save_file({name: value.contiguous() for name, value in tensors.items()}, f'{OUT}/kinds.safetensors')
    np.save(f'{OUT}/kinds.npy', np.stack([row[:32].numpy() for row in rows]).astype(np.float32))


os.makedirs(OUT, exist_ok=True)
make_second()
kinds()
pictures()
