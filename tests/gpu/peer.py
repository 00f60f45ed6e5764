# SPDX-License-Identifier: Apache-2.0
"""The same work by diffusers in bfloat16 on the same machine: quality on the demo checkpoint, speed on the full one.

usage: peer.py --json FILE [--demo] [--full CHECKPOINT | --steps CHECKPOINT] [--size 1024] [--seconds 110]
    [--device cuda]

--demo: the golden edits by FluxKontextPipeline, PSNR against the float32 goldens: what bfloat16 costs the
reference itself.
--full: transformer step (eager, eager with cuDNN attention, compiled block by block with cuDNN attention, that with the
blocks' linear layers in E4M3 by torchao), encode, decode (eager, compiled) and T5, medians in milliseconds.
--steps: of these only the compiled steps in E4M3, one of both sizes, and before them that in bfloat16: two minutes.
No measurement begins after --seconds; FILE is rewritten after each, so that a run that is cut short keeps what it has.
Elsewhere than on cuda times are the host clock's.
"""
import argparse
import json
import os
import sys
import time

import numpy as np
import torch
from PIL import Image

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), '../..')
CASES = [('make it black and white', 0), ('make it night', 1), ('turn it upside down', 2), ('add a shape', 3), ('', 4)]


class Peer:
    def __init__(self, a):
        self.a, self.start, self.found = a, time.monotonic(), {'torch': torch.__version__}

    def keep(self, name, value):
        self.found[name] = value
        print(f'{name:32s} {value if isinstance(value, (str, list)) else round(value, 3)}', flush=True)
        with open(self.a.json + '.part', 'w') as f:
            json.dump(self.found, f, indent=1)
        os.replace(self.a.json + '.part', self.a.json)

    def late(self):
        return time.monotonic() - self.start > self.a.seconds

    def attempt(self, name, function):
        """Keeps function()'s value; a failure or the end of the time is kept as a sentence."""
        try:
            self.keep(name, 'not run: no time left' if self.late() else function())
        except Exception as error:  # a missing backend or a compiler that fails is a result here
            self.keep(name, f'failed: {str(error).splitlines()[0][:100] if str(error) else type(error).__name__}')

    def median(self, function, runs=5, warm=2):
        times = []
        with torch.no_grad():
            for i in range(warm + runs):
                if self.a.device != 'cuda':
                    t = time.perf_counter()
                    function()
                    times.append((time.perf_counter() - t) * 1e3)
                    continue
                begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                begin.record()
                function()
                end.record()
                end.synchronize()
                times.append(begin.elapsed_time(end))
        return float(np.median(times[warm:]))

    def clear(self):
        if self.a.device == 'cuda':
            torch.cuda.empty_cache()

    def random(self, *shape):
        return torch.randn(*shape, generator=torch.Generator().manual_seed(1)).to(self.a.device, torch.bfloat16)


def psnr(a, b):
    d = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    return 999.0 if not d.any() else float(10 * np.log10(255.0 ** 2 / (d * d).mean()))


def edit(pipe, image, prompt, seed, steps=28, **more):
    """One edit whose noise is the float32 noise of the seed, as in the goldens: bfloat16 draws other numbers."""
    w, h = image.size
    noise = torch.randn((1, 16, h // 8, w // 8), generator=torch.Generator('cpu').manual_seed(seed))
    latents = pipe._pack_latents(noise, 1, 16, h // 8, w // 8)
    return pipe(image=image, prompt=prompt, height=h, width=w, max_area=h * w, _auto_resize=False, guidance_scale=2.5,
                num_inference_steps=steps, max_sequence_length=64, latents=latents, **more).images[0]


def demo(peer):
    from diffusers import FluxKontextPipeline
    golden = f'{ROOT}/tests/golden/edits'
    pipe = FluxKontextPipeline.from_pretrained(f'{ROOT}/examples/demo-model/checkpoint', torch_dtype=torch.bfloat16)
    pipe = pipe.to(peer.a.device)
    pipe.set_progress_bar_config(disable=True)
    square = Image.open(f'{ROOT}/examples/demo-model/photos/coffee_256.png').convert('RGB')
    wide = Image.open(f'{golden}/rocket_304x208.png').convert('RGB')
    for i, (prompt, seed) in enumerate(CASES):
        for name, image in (('square', square), ('wide', wide)):
            want = Image.open(f'{golden}/{name}-{i}.png').convert('RGB')
            peer.keep(f'edit {name}-{i}.png', psnr(edit(pipe, image, prompt, seed), want))
    result = edit(pipe, square, 'make it night', 6, 8, negative_prompt='make it brighter', true_cfg_scale=2.0)
    peer.keep('edit cfg.png', psnr(result, Image.open(f'{golden}/cfg.png').convert('RGB')))


def load(cls, folder, device):
    try:
        return cls.from_pretrained(folder, torch_dtype=torch.bfloat16, device_map=device).eval()
    except (ValueError, NotImplementedError, ImportError):
        return cls.from_pretrained(folder, torch_dtype=torch.bfloat16).to(device).eval()


def small_models(peer, folder, size):
    from diffusers import AutoencoderKL
    from transformers import T5EncoderModel
    vae = load(AutoencoderKL, f'{folder}/vae', peer.a.device)
    image, latent = peer.random(1, 3, size, size).clamp(-1, 1), peer.random(1, 16, size // 8, size // 8)
    peer.attempt('encode eager', lambda: peer.median(lambda: vae.encode(image).latent_dist.mode()))
    peer.attempt('decode eager', lambda: peer.median(lambda: vae.decode(latent).sample))
    t5 = load(T5EncoderModel, f'{folder}/text_encoder_2', peer.a.device)
    ids = torch.randint(0, 30000, (1, 512), generator=torch.Generator().manual_seed(1)).to(peer.a.device)
    peer.attempt('t5 eager', lambda: peer.median(lambda: t5(ids)))
    del t5
    peer.clear()
    return vae, latent


def inputs(peer, model, size):
    """Keyword arguments of one evaluation with as large a context, all rows random."""
    n, side, c = (size // 16) ** 2, size // 16, model.config
    grid = torch.zeros(side, side, 3)
    grid[..., 1], grid[..., 2] = torch.arange(side)[:, None], torch.arange(side)[None]
    other = grid.clone()
    other[..., 0] = 1
    ids = torch.cat([grid.reshape(-1, 3), other.reshape(-1, 3)]).to(peer.a.device, torch.bfloat16)
    return {'hidden_states': peer.random(1, 2 * n, c.in_channels), 'img_ids': ids, 'return_dict': False,
            'encoder_hidden_states': peer.random(1, 512, c.joint_attention_dim),
            'pooled_projections': peer.random(1, c.pooled_projection_dim),
            'timestep': torch.full([1], 0.5, device=peer.a.device, dtype=torch.bfloat16),
            'guidance': torch.full([1], 2.5, device=peer.a.device),
            'txt_ids': torch.zeros(512, 3, device=peer.a.device, dtype=torch.bfloat16)}


def compiled(peer, model, name, arguments):
    """Keeps the step's time, and how long its first call took. One graph of each class of blocks, for this shape alone:
    what was compiled for another shape would be compiled again for any, which is slower to make and to run."""
    def run():
        torch._dynamo.reset()
        model.compile_repeated_blocks(fullgraph=True, dynamic=False)
        begin = time.monotonic()
        peer.median(lambda: model(**arguments), 1, 0)
        peer.keep(f'{name}, first call in s', time.monotonic() - begin)
        return peer.median(lambda: model(**arguments), 5, 2)
    peer.attempt(name, run)


def quantise(model):
    """The blocks' linear layers as torchao has them. Its own settings of the compiler would look for the best of many
    forms of each kernel, which took more than the 150 s that were there."""
    from torchao.quantization import Float8DynamicActivationFloat8WeightConfig, PerRow, quantize_
    quantize_(model, Float8DynamicActivationFloat8WeightConfig(granularity=PerRow(), set_inductor_config=False),
              lambda module, name: isinstance(module, torch.nn.Linear) and 'transformer_blocks' in name
              and 'norm' not in name)
    return type(model.transformer_blocks[0].attn.to_q.weight).__name__


def quantised_steps(peer, model, inputs_of):
    peer.attempt('torchao', lambda: quantise(model))
    if peer.found['torchao'].startswith(('failed', 'not run')): return
    for side, arguments in inputs_of: compiled(peer, model, f'step {side} compiled cudnn, torchao fp8', arguments)


def steps(peer, folder, size):
    from diffusers import FluxTransformer2DModel
    model = load(FluxTransformer2DModel, f'{folder}/transformer', peer.a.device)
    large, small = inputs(peer, model, size), inputs(peer, model, size // 2)
    if peer.a.device == 'cuda': model.set_attention_backend('_native_cudnn')
    compiled(peer, model, f'step {size} compiled cudnn', large)
    quantised_steps(peer, model, [(size, large), (size // 2, small)])


def full(peer, folder, size):
    from diffusers import FluxTransformer2DModel
    vae, latent = small_models(peer, folder, size)
    model = load(FluxTransformer2DModel, f'{folder}/transformer', peer.a.device)
    large, small = inputs(peer, model, size), inputs(peer, model, size // 2)
    peer.attempt(f'step {size} eager', lambda: peer.median(lambda: model(**large), 3, 1))
    peer.attempt(f'step {size // 2} eager', lambda: peer.median(lambda: model(**small), 3, 1))

    def cudnn():
        model.set_attention_backend('_native_cudnn')
        return peer.median(lambda: model(**large), 3, 1)

    def decode():
        function = torch.compile(vae.decode)
        return peer.median(lambda: function(latent).sample, 5, 2)
    peer.attempt(f'step {size} eager cudnn', cudnn)
    compiled(peer, model, f'step {size} compiled cudnn', large)
    if peer.a.device == 'cuda':
        peer.keep('peak bytes without text encoders', torch.cuda.max_memory_allocated())
    compiled(peer, model, f'step {size // 2} compiled cudnn', small)
    quantised_steps(peer, model, [(size, large)])
    peer.attempt('decode compiled', decode)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--json', required=True)
    parser.add_argument('--demo', action='store_true')
    parser.add_argument('--full', metavar='CHECKPOINT')
    parser.add_argument('--steps', metavar='CHECKPOINT')
    parser.add_argument('--size', type=int, default=1024)
    parser.add_argument('--seconds', type=float, default=110)
    parser.add_argument('--device', default='cuda')
    a = parser.parse_args()
    try:
        import diffusers
    except ImportError as error:
        print(f'skipped: {error}')
        sys.exit(77)
    peer = Peer(a)
    peer.keep('diffusers', diffusers.__version__)
    with torch.no_grad():
        if a.demo:
            demo(peer)
        if a.full:
            full(peer, a.full, a.size)
        if a.steps:
            steps(peer, a.steps, a.size)


if __name__ == '__main__':
    main()
