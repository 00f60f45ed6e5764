"""Train the judge: the demo checkpoint, taught edits with more than one right answer (judge_edits.py).

usage: train_judge.py --device cuda --minutes 8 --photos PHOTOS --checkpoint CHECKPOINT --tokenizers TOKENIZERS --cases CASES --out OUT

CHECKPOINT is a whole pipeline folder whose weights are the start; its autoencoder stays as it is. TOKENIZERS holds
tokenizer/ and tokenizer_2/ (make_tokenizers.py); words that the checkpoint's own do not have start as the mean of their
pieces. --minutes counts everything from the start of the program to its end. Every minute, and at the end, OUT gets the
averaged weights in bf16 (weights-1 and weights-2.safetensors); with --resume they are the start. log.txt is what is
printed, grid.jpg the edits of CASES (photographs never trained on) with two seeds each. finish_judge.py makes the
pipeline folder. The examples and their order follow from --seed; how many steps are made, from the clock or from --steps.
"""
import argparse
import glob
import json
import os
import time

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file

import judge_edits
import model
from train_edit import PairBuffer, noise_levels

RESERVED = 40  # seconds kept for the grid and the last save
MOST_MAKING = .35  # share of the time that may go into new pairs
SIGMAS = (.3, .6, .85, .97)  # noise levels of the loss on the cases


class Log:
    """Prints, and keeps what it printed in a file; flushed, so that a run that was stopped has said all it knew."""

    def __init__(self, folder):
        self.file, self.began = open(f'{folder}/log.txt', 'a'), time.time()

    def __call__(self, *words):
        line = f'{time.time() - self.began:6.1f} s  ' + ' '.join(str(w) for w in words)
        print(line, flush=True)
        print(line, file=self.file, flush=True)


# ---- weights ---------------------------------------------------------------------------------------------------------
def renamed(state, own):
    """Weights under the names that this version of transformers gives them: with 'text_model.' or without."""
    if set(state) <= set(own):
        return state
    if any(name.startswith('text_model.') for name in state):
        return {name.removeprefix('text_model.'): value for name, value in state.items()}
    return {'text_model.' + name: value for name, value in state.items()}


def pieces_of(tokenizer, token):
    """The ids that another tokenizer gives the text of a token."""
    text = token.replace('▁', ' ').replace('</w>', ' ')
    return tokenizer(text.strip() or text, add_special_tokens=False).input_ids


def grown(table, old, new):
    """A table of embeddings for another tokenizer's tokens."""
    known, out = old.get_vocab(), table.new_zeros(len(new), table.shape[1])
    for token, index in new.get_vocab().items():
        rows = [known[token]] if token in known else pieces_of(old, token)
        out[index] = table[rows].mean(0) if rows else table.mean(0)
    return out


def load_start(editor, folder, tokens):
    """The weights of a pipeline folder, with its embeddings carried over to `tokens`."""
    old, parts = model.Tokens(folder), {'transformer': 'transformer', 'clip': 'text_encoder', 't5': 'text_encoder_2'}
    for part, sub in parts.items():
        module, state = getattr(editor, part), {}
        for path in sorted(glob.glob(f'{folder}/{sub}/*.safetensors')):
            state |= {name: value.float() for name, value in load_file(path).items()}
        own = module.state_dict()
        state = renamed(state, own)
        if part != 'transformer':
            for name in [n for n in state if n.endswith(('token_embedding.weight', 'shared.weight', 'embed_tokens.weight'))]:
                state[name] = grown(state[name], getattr(old, part), getattr(tokens, part))
        missing, unexpected = module.load_state_dict(state, strict=False)
        assert not unexpected and all(n.endswith(('embed_tokens.weight', 'position_ids')) for n in missing), (part, missing, unexpected)


def save_parts(editor, folder):
    """All weights in bf16 in two files of about one size."""
    state = {name: value.detach().to('cpu', torch.bfloat16).contiguous() for name, value in editor.state_dict().items()}
    if 't5.encoder.embed_tokens.weight' in state:  # the same tensor as t5.shared.weight
        del state['t5.encoder.embed_tokens.weight']
    half, filled, parts = sum(v.numel() for v in state.values()) / 2, 0, ({}, {})
    for name, value in state.items():
        parts[filled >= half][name] = value
        filled += value.numel()
    for k, part in enumerate(parts):
        path = f'{folder}/weights-{k + 1}.safetensors'
        save_file(part, path + '.new')
        os.replace(path + '.new', path)


def load_parts(editor, folder):
    state = {}
    for k in (1, 2):
        state |= {name: value.float() for name, value in load_file(f'{folder}/weights-{k}.safetensors').items()}
    missing, unexpected = editor.load_state_dict(state, strict=False)
    assert not unexpected and all(n.endswith(('embed_tokens.weight', 'position_ids')) for n in missing), (missing, unexpected)


# ---- the cases, which are never trained on ---------------------------------------------------------------------------
class Cases:
    """Photographs, prompts and tiers of a list of cases."""

    def __init__(self, path, height, width, limit):
        with open(path) as f:
            rows = json.load(f)
        self.rows = [row for k, row in enumerate(rows) if not limit or k % max(1, len(rows) // limit) == 0]
        self.images = []
        for row in self.rows:
            image = Image.open(os.path.join(os.path.dirname(path), row['input'])).convert('RGB').resize((width, height))
            pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
            self.images.append(pixels.view(height, width, 3).permute(2, 0, 1).float() / 255)

    def edit(self, editor, latents, tokens, device, seed, steps, batch=24):
        out = []
        for k in range(0, len(self.rows), batch):
            images = torch.stack(self.images[k:k + batch]).to(device)
            out.append(model.edit(editor, latents, tokens, images, [row['prompt'] for row in self.rows[k:k + batch]], steps, seed).cpu())
        return torch.cat(out)

    def grid(self, results, path, side=112, columns=4):
        """For each case the photograph and the results of all seeds."""
        wide, rows = (1 + len(results)) * side, -(-len(self.rows) // columns)
        sheet = Image.new('RGB', (columns * (wide + 6), rows * (side + 14)), 'white')
        draw = ImageDraw.Draw(sheet)
        for k, row in enumerate(self.rows):
            left, top = k % columns * (wide + 6), k // columns * (side + 14)
            draw.text((left + 2, top + 1), f'{row["tier"]}: "{row["prompt"]}"', fill='black')
            for c, image in enumerate([self.images[k]] + [result[k] for result in results]):
                cell = Image.fromarray((image.permute(1, 2, 0) * 255).round().byte().numpy()).resize((side, side), Image.LANCZOS)
                sheet.paste(cell, (left + c * side, top + 14))
        sheet.save(path, quality=88)


class Checked:
    """Fresh examples on a few photographs and a fixed noise, the same at every check: the loss by kind of edit."""

    def __init__(self, maker, latents, tokens, count, device):
        self.parts = {}
        for name in ('add', 'remove', 'recolor', 'replace', 'water', 'blur behind', 'snow', 'rays', 'open', 'named'):
            source, prompts, target = maker.make(count, name)
            self.parts[name] = (latents.encode(source), latents.encode(target), tokens(prompts).to(device))
        rows, columns = maker.height // 16, maker.width // 16
        noise = torch.randn(count, rows * columns, 4 * model.LATENT_CHANNELS, generator=torch.Generator().manual_seed(11))
        self.noise, self.size = noise.to(device), (rows, columns)

    @torch.no_grad()
    def __call__(self, editor):
        with torch.compiler.set_stance('force_eager'):  # another batch than the one compiled for
            return {name: sum(self.loss(editor, level, *part) for level in SIGMAS) / len(SIGMAS) for name, part in self.parts.items()}

    def loss(self, editor, level, context, clean, ids):
        device = self.noise.device
        sigma, guidance = torch.full((len(ids),), level, device=device), torch.full((len(ids),), 2.5, device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == 'cuda'):
            velocity = editor(torch.lerp(clean, self.noise, level), context, sigma, guidance, ids, *self.size)
        return F.mse_loss(velocity.float(), self.noise - clean).item()


# ---- training --------------------------------------------------------------------------------------------------------
class Trainer:
    """One step of flow matching at a time, compiled where that works."""

    def __init__(self, editor, buffer, tokens, args, log):
        self.editor, self.buffer, self.args, self.log = editor, buffer, args, log
        self.device = buffer.ids.device
        self.no_prompt = tokens(['']).to(self.device)
        seconds = args.minutes * 60
        self.flat = model.FlatTrainer(editor, args.rate, (.9, .99), seconds, .01, 150, .999, clip=.5)
        self.smooth = None

    def compile(self, on):
        for part in (self.editor.transformer, self.editor.t5, self.editor.clip):
            if on:
                part.compile(dynamic=False)
            else:
                part._compiled_call_impl = None

    def loss(self):
        args, device = self.args, self.device
        context, clean, ids = self.buffer.draw(args.batch)
        ids = torch.where(torch.rand(args.batch, 1, device=device) < .02, self.no_prompt, ids)
        sigma, noise = noise_levels(args.batch, device), torch.randn_like(clean)
        noisy = torch.lerp(clean, noise, sigma[:, None, None])
        guidance = torch.empty(args.batch, device=device).uniform_(1, 5)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == 'cuda'):
            velocity = self.editor(noisy, context, sigma, guidance, ids, self.buffer.rows, self.buffer.columns)
        return F.mse_loss(velocity.float(), noise - clean)

    def begin(self, compiled):
        """Compiles with a first loss; goes on without, where the compiler fails."""
        if not compiled:
            return
        self.compile(True)
        try:
            self.loss().backward()
        except Exception as failure:
            self.log('not compiled:', str(failure).splitlines()[0][:200])
            self.compile(False)
        for p in self.flat.params:
            p.grad = None

    def step(self, progress):
        loss = self.loss()
        loss.backward()
        self.flat.step(progress * self.flat.seconds)
        self.smooth = loss.detach() if self.smooth is None else torch.lerp(self.smooth, loss.detach(), .02)


def make_latents(vae, log, compiled, shape):
    """With a compiled encoder where that works."""
    if compiled:
        try:
            latents = model.Latents(vae, compile_encoder=True)
            latents.encode(torch.zeros(shape, device=vae.device))
            return latents
        except Exception as failure:
            log('encoder not compiled:', str(failure).splitlines()[0][:200])
    return model.Latents(vae)


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--minutes', type=float, required=True, help='of the whole program')
    parser.add_argument('--steps', type=int, help='stop after these')
    parser.add_argument('--photos', required=True)
    parser.add_argument('--checkpoint', required=True)
    parser.add_argument('--tokenizers', required=True)
    parser.add_argument('--cases', required=True)
    parser.add_argument('--out', required=True)
    parser.add_argument('--resume', action='store_true', help='start from the weights in --out')
    parser.add_argument('--size', type=int, default=model.SIZE, help='side of the pictures')
    parser.add_argument('--batch', type=int, default=192, help='pairs per step')
    parser.add_argument('--buffer', type=int, default=24576, help='encoded pairs')
    parser.add_argument('--chunk', type=int, default=128, help='pairs made at a time, all of one kind of edit')
    parser.add_argument('--reuse', type=float, default=6, help='times a pair is drawn, with fresh noise, before it is replaced')
    parser.add_argument('--first', type=int, default=40, help='chunks made before the first step')
    parser.add_argument('--pool', type=int, default=4000, help='photographic crops')
    parser.add_argument('--rate', type=float, default=6e-4)
    parser.add_argument('--save-every', type=float, default=60, help='seconds')
    parser.add_argument('--checked', type=int, default=32, help='examples of each kind in the check')
    parser.add_argument('--shown', type=int, default=0, help='cases in the grid; 0: all')
    parser.add_argument('--sampling-steps', type=int, default=28)
    parser.add_argument('--threads', type=int, default=os.cpu_count())
    parser.add_argument('--eager', action='store_true', help='do not compile')
    parser.add_argument('--seed', type=int, default=0)
    return parser.parse_args()


def seconds_of(work, count, device):
    """Of one of `count` calls."""
    start = time.time()
    for _ in range(count):
        work()
    if device.type == 'cuda':
        torch.cuda.synchronize()
    return (time.time() - start) / count


def train(args, trainer, checked, log, chunk_seconds):
    """Until the time is up; the number of steps and of pairs made. chunk_seconds: what a chunk of pairs takes."""
    editor, flat, began = trainer.editor, trainer.flat, log.began
    start, end, saved, step, owed, made, reached = time.time(), began + args.minutes * 60 - RESERVED, time.time(), 0, 0., 0, False
    made_per_step = args.batch / args.reuse
    while not reached:
        if step == 30 and not args.steps:  # no faster than the device can make them beside the steps
            step_seconds = seconds_of(lambda: trainer.step(0.), 10, trainer.device)
            most = MOST_MAKING / (1 - MOST_MAKING) * step_seconds / chunk_seconds * args.chunk
            made_per_step = min(made_per_step, most)
            log(f'a step {step_seconds * 1000:.1f} ms, a chunk {chunk_seconds * 1000:.1f} ms: {made_per_step:.1f} pairs a step')
        progress = step / args.steps if args.steps else (time.time() - start) / max(1., end - start)
        owed += made_per_step
        if owed >= args.chunk:
            trainer.buffer.refill()
            owed -= args.chunk
            made += args.chunk
        trainer.step(progress)
        step += 1
        if step % 20 == 0 and args.device.startswith('cuda'):
            torch.cuda.synchronize()  # the clock below is the device's
        reached = time.time() >= end or bool(args.steps and step >= args.steps)
        if step in (1, 5, 20, 100) or step % 250 == 0 or reached:
            log(f'step {step} loss {trainer.smooth.item():.4f} gradient {flat.norm.item():.3f} '
                f'{step / (time.time() - start):.2f} steps/s')
        if time.time() - saved >= args.save_every or reached:
            flat.swap_averaged()
            save_parts(editor, args.out)
            log('saved; checked', {name: round(value, 4) for name, value in checked(editor).items()})
            flat.swap_averaged()
            saved = time.time()
    return step, made


def main():
    args = parse()
    os.makedirs(args.out, exist_ok=True)
    log, device, size = Log(args.out), torch.device(args.device), args.size
    model.setup_torch()
    torch.manual_seed(1 + args.seed)
    on_gpu = device.type == 'cuda'
    if not on_gpu:
        torch.set_num_threads(args.threads)
    vae = model.load_vae(args.checkpoint, device, torch.bfloat16 if on_gpu else torch.float32)
    latents = make_latents(vae, log, on_gpu and not args.eager, (2 * args.chunk, 3, size, size))
    tokens = model.Tokens(args.tokenizers)
    editor = model.Editor.from_tokens(tokens)
    load_start(editor, args.checkpoint, tokens)
    if args.resume:
        load_parts(editor, args.out)
    editor.to(device).train()
    log('weights loaded,', round(sum(p.numel() for p in editor.parameters()) / 1e6, 2), 'M')
    photos = judge_edits.JudgePhotos(args.photos, size, size, args.pool, device, seed=50 + args.seed, threads=args.threads)
    log(len(photos.pool), 'crops')
    checked = Checked(judge_edits.JudgeMaker(size, size, device, photos, 99), model.Latents(vae), tokens, args.checked, device)
    log('before; checked', {name: round(value, 4) for name, value in checked(editor).items()})
    maker = judge_edits.JudgeMaker(size, size, device, photos, 2000 + args.seed)
    buffer = PairBuffer(maker, latents, tokens, args.buffer, args.chunk, args.first * args.chunk)
    chunk_seconds = seconds_of(buffer.refill, 12, device)
    first = (args.first + 12) * args.chunk
    log(first, 'pairs made')
    trainer = Trainer(editor, buffer, tokens, args, log)
    trainer.begin(on_gpu and not args.eager)
    log('begins')
    steps, made = train(args, trainer, checked, log, chunk_seconds)
    log(f'{steps} steps, {steps * args.batch} samples of {first + made} pairs')
    trainer.flat.swap_averaged()
    trainer.compile(False)
    editor.eval()
    cases = Cases(args.cases, size, size, args.shown)
    plain = model.Latents(vae)
    results = [cases.edit(editor, plain, tokens, device, seed, args.sampling_steps) for seed in (0, 1)]
    cases.grid(results, f'{args.out}/grid.jpg')
    log('grid.jpg')


if __name__ == '__main__':
    os.environ.setdefault('TOKENIZERS_PARALLELISM', 'false')
    main()
