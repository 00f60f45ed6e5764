#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes weights.json: what the safetensors library reads from the demo checkpoint (tests/test-weights.c).

Usage: make_weights.py path/to/examples/demo-model/checkpoint > tests/golden/weights.json
Convolutions are given in the order [out, kh, kw, in]. `index` counts elements of the flattened tensor.
"""
import glob
import json
import os
import sys

import torch
from safetensors import safe_open

PARTS = [
    ("transformer", "diffusion_pytorch_model", [
        "x_embedder.weight",
        "transformer_blocks.1.ff.net.2.weight",
        "single_transformer_blocks.4.proj_out.weight",
        "norm_out.linear.bias",
    ]),
    ("vae", "diffusion_pytorch_model", [
        "encoder.conv_in.weight",
        "decoder.up_blocks.2.resnets.0.conv_shortcut.weight",
        "decoder.mid_block.resnets.0.conv1.weight",
        "decoder.conv_norm_out.bias",
    ]),
    ("text_encoder", "model", ["embeddings.token_embedding.weight", "final_layer_norm.weight"]),
    ("text_encoder_2", "model", [
        "shared.weight",
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
    ]),
]


def main():
    root = sys.argv[1]
    parts = []
    for folder, stem, wanted in PARTS:
        count = elements = 0
        tensors = []
        for path in sorted(glob.glob(os.path.join(root, folder, stem + "*.safetensors"))):
            with safe_open(path, "pt") as file:
                for name in file.keys():
                    tensor = file.get_tensor(name)
                    count += 1
                    elements += tensor.numel()
                    short = name.removeprefix("text_model.")
                    if short not in wanted:
                        continue
                    memory = tensor.permute(0, 2, 3, 1) if tensor.dim() == 4 else tensor
                    flat = memory.reshape(-1).double()
                    step = max(1, flat.numel() // 7)
                    index = list(range(0, flat.numel(), step)) + [flat.numel() - 1]
                    tensors.append({
                        "name": name,
                        "shape": list(tensor.shape),
                        "index": index,
                        "value": [flat[i].item() for i in index],
                        "sum": flat.sum().item(),
                        "sum_of_squares": flat.square().sum().item(),
                    })
        assert len(tensors) == len(wanted), (folder, [t["name"] for t in tensors])
        parts.append({"folder": folder, "stem": stem, "tensors": count, "elements": elements, "values": tensors})
    json.dump({"parts": parts}, sys.stdout, indent=1)
    print()


main()
