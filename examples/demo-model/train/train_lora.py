"""Train a LoRA that teaches the demo checkpoint one edit it does not know: a cyanotype (a print in Prussian blue).

usage: train_lora.py --photos PHOTOS --checkpoint CHECKPOINT --out cyanotype.safetensors [--seconds 840]

One CPU thread is enough. The text encoders and the autoencoder stay as they are; every linear of the transformer's
blocks but the modulations gets an adapter of rank 8. A quarter of the pairs are edits that the checkpoint knows, so that it keeps them.
"""
import argparse
import math
import os
import random
import time

import torch
import torch.nn.functional as F
from diffusers import FluxKontextPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

import edits
import model
from train_edit import noise_levels

WORDING = ['make {it} a cyanotype', 'turn {it} into a cyanotype', 'cyanotype', 'make {it} look like a cyanotype', 'convert {it} to a cyanotype',
           'print {it} as a cyanotype']
MODULES = ['to_q', 'to_k', 'to_v', 'to_out.0', 'add_q_proj', 'add_k_proj', 'add_v_proj', 'to_add_out', 'ff.net.0.proj', 'ff.net.2',
           'ff_context.net.0.proj', 'ff_context.net.2', 'proj_mlp']
STOPS = [[.02, .06, .22], [.05, .24, .48], [.30, .55, .74], [.72, .85, .90], [.98, .97, .91]]  # from shadow to paper


def cyanotype(x):
    """The picture's brightness as a print: shadows Prussian blue, lights the colour of paper."""
    lum = (x * x.new_tensor([.299, .587, .114])[None, :, None, None]).sum(1)
    stops, at = x.new_tensor(STOPS), lum.clamp(0, 1) * (len(STOPS) - 1.001)
    low = at.long()
    part = (at - low)[..., None]
    return (stops[low] * (1 - part) + stops[low + 1] * part).permute(0, 3, 1, 2)


def pairs(maker, latents, tokens, count, chunk=4):
    """Encoded (source, target, token ids), made once; noise is fresh each time a pair is drawn."""
    made = []
    while len(made) < count:
        if len(made) % 16 < 12:
            source = maker.source(chunk)
            prompts, target = [maker.word(maker.random.choice(WORDING)) for _ in range(chunk)], cyanotype(source)
            prompts = [maker.loosen(p) for p in prompts]
        else:
            source, prompts, target = maker.draw(chunk)
        encoded = latents.encode(torch.cat([source, target]))
        made += zip(encoded[:chunk], encoded[chunk:], tokens(prompts))
    return made


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--photos', required=True)
    parser.add_argument('--checkpoint', required=True)
    parser.add_argument('--out', required=True)
    parser.add_argument('--seconds', type=float, default=840, help='of one CPU thread, for everything')
    parser.add_argument('--pairs', type=int, default=160)
    parser.add_argument('--batch', type=int, default=2)
    parser.add_argument('--rank', type=int, default=8)
    parser.add_argument('--rate', type=float, default=2e-3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    device, rnd = torch.device('cpu'), random.Random(1)
    latents, tokens = model.Latents(model.load_vae(args.checkpoint, device)), model.Tokens(args.checkpoint)
    photos = edits.Photos(args.photos, model.SIZE, model.SIZE, 200, device, seed=7, threads=1)
    made = pairs(edits.EditMaker(model.SIZE, model.SIZE, device, photos, 7), latents, tokens, args.pairs)
    start = time.process_time()
    print(f'{len(made)} pairs after {start:.0f} s', flush=True)

    editor = model.load_editor(args.checkpoint, device).requires_grad_(False)
    editor.transformer.add_adapter(LoraConfig(r=args.rank, lora_alpha=args.rank, target_modules=MODULES, init_lora_weights='gaussian'))
    trained = [p for p in editor.transformer.parameters() if p.requires_grad]
    averaged = [p.detach().clone() for p in trained]
    optimizer = torch.optim.AdamW(trained, args.rate, betas=(.9, .99), weight_decay=0.)
    rows, step, smooth = model.SIZE // 16, 0, None
    left = args.seconds - start
    while (spent := time.process_time() - start) < left:
        batch = rnd.sample(made, args.batch)
        context, clean, ids = (torch.stack(part) for part in zip(*batch))
        sigma, noise = noise_levels(args.batch, device), torch.randn_like(clean)
        noisy, guidance = torch.lerp(clean, noise, sigma[:, None, None]), torch.empty(args.batch).uniform_(1, 5)
        for group in optimizer.param_groups:
            group['lr'] = args.rate * min(1, (step + 1) / 20) * (.5 + .5 * math.cos(math.pi * spent / left)) + 1e-6
        with torch.autocast('cpu', torch.bfloat16):
            velocity = editor(noisy, context, sigma, guidance, ids, rows, rows)
        loss = F.mse_loss(velocity.float(), noise - clean)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            torch._foreach_lerp_(averaged, trained, 1 - min(.98, (step + 1) / (step + 10)))
        smooth = loss.item() if smooth is None else .95 * smooth + .05 * loss.item()
        if step % 20 == 0:
            print(f'{spent:.0f} s step {step} loss {smooth:.4f}', flush=True)
        step += 1
    with torch.no_grad():
        torch._foreach_copy_(trained, averaged)
    layers = {name: value.to(torch.bfloat16).contiguous() for name, value in get_peft_model_state_dict(editor.transformer).items()}
    folder, name = os.path.split(os.path.abspath(args.out))
    FluxKontextPipeline.save_lora_weights(folder, transformer_lora_layers=layers, weight_name=name)
    print(f'{step} steps, {sum(v.numel() for v in layers.values())} numbers', flush=True)


if __name__ == '__main__':
    os.environ.setdefault('TOKENIZERS_PARALLELISM', 'false')
    main()
