# SPDX-License-Identifier: Apache-2.0
"""Writes references/: edits of the demo checkpoint with several reference pictures, in float32 on the CPU: diffusers'
FluxKontextPipeline, given the tokens and positions that ComfyUI's model (comfy/ldm/flux/model.py) gives them, since
diffusers takes one picture.

usage: make_references.py     (from anywhere; a minute on two cores)

The frame is inpaint/source.png. offset-2.png: rocket.png too; offset-3.png: rocket.png and shapes_256.png; index-3.png:
the same with an index of their own. Each is brought to its own preferred size first.
"""
import os

import torch
from diffusers import FluxKontextPipeline
from PIL import Image

HERE = os.path.dirname(os.path.abspath(__file__))
DEMO = os.path.join(HERE, '../../examples/demo-model')
OUT = os.path.join(HERE, 'references')


def places(sizes, method):
    """(index, y, x) of each picture in tokens; sizes: rows and columns of each."""
    result, h, w = [], 0, 0
    for k, (rows, columns) in enumerate(sizes):
        if method == 'index':
            result.append((k + 1, 0, 0))
            continue
        y = x = 0
        if rows + h > columns + w:
            x = w
        else:
            y = h
        h, w = max(h, rows + y), max(w, columns + x)
        result.append((1, y, x))
    return result


class Pipeline(FluxKontextPipeline):
    def prepare_latents(self, image, batch_size, channels, height, width, dtype, device, generator, latents=None):
        latents, tokens, latent_ids, ids = super().prepare_latents(
            image, batch_size, channels, height, width, dtype, device, generator, latents)
        pictures = [image] + self.more
        sizes = [(p.shape[2] // 16, p.shape[3] // 16) for p in pictures]
        all_tokens, all_ids = [], []
        for picture, size, place in zip(pictures, sizes, places(sizes, self.method)):
            encoded = self._encode_vae_image(picture, generator)
            all_tokens.append(self._pack_latents(encoded, 1, channels, *encoded.shape[2:]))
            own = self._prepare_latent_image_ids(1, *size, device, dtype)
            all_ids.append(own + torch.tensor(place, dtype=dtype))
        assert torch.equal(all_tokens[0], tokens) and torch.equal(all_ids[0], ids)
        return latents, torch.cat(all_tokens, 1), latent_ids, torch.cat(all_ids, 0)


def photo(pipe, name, size):
    picture = Image.open(f'{DEMO}/photos/{name}').convert('RGB').resize(size, Image.LANCZOS)
    return pipe.image_processor.preprocess(picture, size[1], size[0])


@torch.no_grad()
def main():
    os.makedirs(OUT, exist_ok=True)
    pipe = Pipeline.from_pretrained(f'{DEMO}/checkpoint', torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    source = Image.open(f'{HERE}/inpaint/source.png').convert('RGB')
    more = [photo(pipe, 'rocket.png', (304, 208)), photo(pipe, 'shapes_256.png', (256, 256))]
    for method, n in (('offset', 1), ('offset', 2), ('index', 2)):
        pipe.method, pipe.more = method, more[:n]
        pipe(image=source, prompt='make it night', height=source.height, width=source.width,
             max_area=source.width * source.height, _auto_resize=False, max_sequence_length=64, guidance_scale=2.5,
             num_inference_steps=6,
             generator=torch.Generator('cpu').manual_seed(8)).images[0].save(f'{OUT}/{method}-{n + 1}.png')
    print(sorted(os.listdir(OUT)))


main()
