"""Train a LoRA with which the demo checkpoint needs 4 Euler steps for what takes it 28.

usage: train_few_step.py --photos PHOTOS --checkpoint CHECKPOINT --out few-step.safetensors [--steps 2000] [--device cuda]

The teacher is the checkpoint itself with 28 steps. Evenly spaced noise levels before the shift make every seventh of
its levels one of the student's four, so that the state that the student's step should reach is one that the teacher
was in. The student takes its four steps from the same noise, each from where its own last one ended, and the loss is
the distance from the teacher's states, through all four. There is no right answer to be given: sources, prompts and
noise are enough. Every linear of the transformer gets an adapter of rank 8, the modulations too, because the student
sees four noise levels only.
"""
import argparse
import os
import random
import time

import torch
from diffusers import FluxKontextPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

import edits
import model

TEACHER, STUDENT = 28, 4
ROWS = model.SIZE // 16
GUIDANCE = 2.5
MODULES = ['to_q', 'to_k', 'to_v', 'to_out.0', 'add_q_proj', 'add_k_proj', 'add_v_proj', 'to_add_out', 'ff.net.0.proj', 'ff.net.2',
           'ff_context.net.0.proj', 'ff_context.net.2', 'proj_mlp', 'proj_out', 'norm.linear', 'norm1.linear', 'norm1_context.linear',
           'x_embedder', 'timestep_embedder.linear_1', 'timestep_embedder.linear_2']
VAGUE = ['change {it}', 'edit {it}', 'improve {it}', 'make {it} different', 'add something', 'do something with {it}']


def velocity(editor, x, case, sigma):
    """Of [B, tokens, 64] at one noise level."""
    context, ids = case
    with torch.autocast(x.device.type, torch.bfloat16):
        return editor(x, context, sigma.expand(len(x)), x.new_full((len(x),), GUIDANCE), ids, ROWS, ROWS).float()


def walk(editor, x, case, steps):
    """The states after each of the Euler steps from noise x."""
    levels, states = model.sigmas(steps, x.shape[1], x.device), []
    for k in range(steps):
        x = x + (levels[k + 1] - levels[k]) * velocity(editor, x, case, levels[k])
        states.append(x)
    return states


class Lessons:
    """What the teacher did: (source, token ids, noise, states at the student's levels)."""

    def __init__(self, editor, latents, tokens, photos, seed):
        self.editor, self.latents, self.tokens, self.photos = editor, latents, tokens, photos
        self.maker = edits.EditMaker(model.SIZE, model.SIZE, photos.pool.device, photos, seed)
        self.random, self.generator = random.Random(seed), torch.Generator().manual_seed(seed)

    def prompt(self):
        """Two thirds empty, where the noise decides the most; the rest vague or one of the edits it knows."""
        kind = self.random.random()
        if kind < .65:
            return ''
        wording = VAGUE if kind < .75 else self.random.choice(list(edits.PHOTO_WORDING.values()))
        return self.maker.word(self.random.choice(wording), new=self.random.choice(edits.COLOR_NAMES))

    @torch.no_grad()
    def draw(self, count):
        photo = self.random.random() < .8
        source = self.photos.sample(count, self.maker.generator) if photo else self.maker.source(count)
        context, ids = self.latents.encode(source), self.tokens([self.prompt() for _ in range(count)]).to(source.device)
        noise = torch.randn(context.shape, generator=self.generator).to(source.device)
        states = walk(self.editor, noise, (context, ids), TEACHER)[TEACHER // STUDENT - 1::TEACHER // STUDENT]
        return list(zip(context, ids, noise, torch.stack(states, 1)))


def batch(lessons):
    context, ids, noise, states = (torch.stack(part) for part in zip(*lessons))
    return (context, ids), noise, states.unbind(1)


@torch.no_grad()
def distance(editor, lessons):
    """Root of the mean square of the last state's error, by lesson."""
    case, noise, states = batch(lessons)
    return (walk(editor, noise, case, STUDENT)[-1] - states[-1]).pow(2).mean((1, 2)).sqrt()


def save(transformer, path):
    layers = {name: value.to('cpu', torch.bfloat16).contiguous() for name, value in get_peft_model_state_dict(transformer).items()}
    folder, name = os.path.split(os.path.abspath(path))
    FluxKontextPipeline.save_lora_weights(folder, transformer_lora_layers=layers, weight_name=name)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--photos', required=True)
    parser.add_argument('--checkpoint', required=True)
    parser.add_argument('--out', required=True)
    parser.add_argument('--device', default='cpu', help='cpu: one thread')
    parser.add_argument('--seconds', type=int, default=1 << 30, help='no step begins after these')
    parser.add_argument('--steps', type=int, default=2000)
    parser.add_argument('--first', type=int, default=24, help='lessons before the first step')
    parser.add_argument('--every', type=int, default=4, help='steps between new lessons and the next')
    parser.add_argument('--drawn', type=int, default=2, help='lessons that are drawn at once')
    parser.add_argument('--kept', type=int, default=160, help='lessons to draw from; the oldest leave')
    parser.add_argument('--batch', type=int, default=2)
    parser.add_argument('--rank', type=int, default=8)
    parser.add_argument('--rate', type=float, default=1e-3)
    parser.add_argument('--checked', type=int, default=8, help='lessons that are never learnt from')
    parser.add_argument('--save-every', type=int, default=25, help='steps')
    args = parser.parse_args()
    model.setup_torch()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    device, rnd, start = torch.device(args.device), random.Random(1), time.time()
    latents, tokens = model.Latents(model.load_vae(args.checkpoint, device)), model.Tokens(args.checkpoint)
    photos = edits.Photos(args.photos, model.SIZE, model.SIZE, 200, device, seed=7, threads=1)
    teacher, editor = (model.load_editor(args.checkpoint, device).requires_grad_(False) for _ in range(2))
    checked, checker = [], Lessons(teacher, latents, tokens, photos, 98)
    while len(checked) < args.checked:
        checked += checker.draw(args.drawn)
    maker, lessons = Lessons(teacher, latents, tokens, photos, 7), []
    while len(lessons) < args.first:
        lessons += maker.draw(args.drawn)
    print(f'{len(lessons)} lessons after {time.time() - start:.0f} s; 4 plain steps are off by {distance(teacher, checked)}', flush=True)

    editor.transformer.add_adapter(LoraConfig(r=args.rank, lora_alpha=args.rank, target_modules=MODULES, init_lora_weights='gaussian'))
    trained = [p for p in editor.transformer.parameters() if p.requires_grad]
    averaged = [p.detach().clone() for p in trained]
    optimizer = torch.optim.AdamW(trained, args.rate, betas=(.9, .99), weight_decay=0.)
    smooth = None
    for step in range(1, args.steps + 1):
        if step % args.every == 0:
            lessons = (lessons + maker.draw(args.drawn))[-args.kept:]
        case, noise, states = batch(rnd.sample(lessons, args.batch))
        loss = sum((a - b).pow(2).mean() for a, b in zip(walk(editor, noise, case, STUDENT), states))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.)
        for group in optimizer.param_groups:
            group['lr'] = args.rate * min(1, step / 20)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            torch._foreach_lerp_(averaged, trained, 1 - min(.98, step / (step + 10)))
        smooth = loss.item() if smooth is None else .95 * smooth + .05 * loss.item()
        last = step == args.steps or time.time() - start > args.seconds
        if step % args.save_every and not last:
            continue
        kept = [p.detach().clone() for p in trained]
        with torch.no_grad():
            torch._foreach_copy_(trained, averaged)
        save(editor.transformer, args.out)
        off = distance(editor, checked)
        print(f'{time.time() - start:.0f} s step {step} loss {smooth:.4f} off by {off.mean():.4f} {off}', flush=True)
        if last:
            break
        with torch.no_grad():
            torch._foreach_copy_(trained, kept)


if __name__ == '__main__':
    os.environ.setdefault('TOKENIZERS_PARALLELISM', 'false')
    main()
