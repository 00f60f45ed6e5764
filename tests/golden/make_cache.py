# SPDX-License-Identifier: Apache-2.0
"""Writes cache/*.npy: step caches and token merging by independent code. Needs torch and diffusers.

usage: make_cache.py       (from anywhere; seconds)

first-*: diffusers' FirstBlockCache hook on the tiny random transformer stages/flux-b, without a context, so that its
whole image stream is the target. policy-*: DBCache with a block behind, and TeaCache, written out on the same blocks
with a context. taylor-*: the TaylorSeer recurrence on random compute patterns, in float64.
reuse-*: stages/flux-a with the keys and values of its context taken from an earlier run.
merge-*: bipartite soft matching (ToMe's choice) with a stable order, in float64, on features with exact ties;
merged-*: stages/flux-a with a block on merged tokens.
"""
import math
import os

import numpy as np
import torch
from diffusers import FirstBlockCacheConfig, FluxTransformer2DModel
from diffusers.models.transformers import transformer_flux

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, 'cache')
STEPS, GRID, CONTEXT, TEXT, THRESHOLD = 12, (6, 2), (3, 5), 9, 0.4


def save(name, value):
    np.save(f'{OUT}/{name}.npy', np.ascontiguousarray(np.asarray(value)))


@torch.no_grad()
def first_block():
    model = FluxTransformer2DModel.from_pretrained(f'{HERE}/stages/flux-b').eval()
    g = torch.Generator().manual_seed(1)
    rows, c = GRID[0] * GRID[1], model.config
    start, drift = torch.randn(1, rows, c.in_channels, generator=g), torch.randn(1, rows, c.in_channels, generator=g)
    states = torch.randn(1, TEXT, c.joint_attention_dim, generator=g)
    pooled = torch.randn(1, c.pooled_projection_dim, generator=g)
    ids = torch.zeros(*GRID, 3)
    ids[..., 1], ids[..., 2] = torch.arange(GRID[0])[:, None], torch.arange(GRID[1])[None]
    sigmas = torch.linspace(1, 0.9, STEPS)
    tokens = torch.stack([start[0] + 0.02 * (i + i * i / 6) * drift[0] for i in range(STEPS)])
    calls = []
    model.transformer_blocks[1].norm1.register_forward_pre_hook(lambda *_: calls.append(1))
    model.enable_cache(FirstBlockCacheConfig(threshold=THRESHOLD))
    velocity, mask = [], ''
    for i in range(STEPS):
        before = len(calls)
        with model.cache_context('cond'):
            velocity.append(model(hidden_states=tokens[i:i + 1], encoder_hidden_states=states,
                                  pooled_projections=pooled, timestep=sigmas[i:i + 1],
                                  guidance=torch.tensor([3.5]), txt_ids=torch.zeros(TEXT, 3),
                                  img_ids=ids.reshape(-1, 3), return_dict=False)[0][0])
        mask += '1' if len(calls) > before else '0'
    print('first-block', mask)
    assert 3 <= mask.count('0') <= 9
    for name, value in {'tokens': tokens, 'states': states[0], 'pooled': pooled, 'sigmas': sigmas,
                        'velocity': torch.stack(velocity), 'mask': np.array([int(m) for m in mask], np.int32)}.items():
        save(f'first-{name}', value)


class Pieces:
    """flux-b block by block on a target and a context, for policies written out below."""

    def __init__(self):
        self.model = FluxTransformer2DModel.from_pretrained(f'{HERE}/stages/flux-b').eval()
        g = torch.Generator().manual_seed(8)
        rows, c = GRID[0] * GRID[1], self.model.config
        self.n, self.blocks = rows, [*self.model.transformer_blocks, *self.model.single_transformer_blocks]
        start, drift = torch.randn(rows, c.in_channels, generator=g), torch.randn(rows, c.in_channels, generator=g)
        context = torch.randn(CONTEXT[0] * CONTEXT[1], c.in_channels, generator=g)
        self.tokens = torch.stack([torch.cat([start + 0.02 * (i + i * i / 6) * drift, context]) for i in range(STEPS)])
        self.states = torch.randn(1, TEXT, c.joint_attention_dim, generator=g)
        self.pooled, self.sigmas = torch.randn(1, c.pooled_projection_dim, generator=g), torch.linspace(1, 0.9, STEPS)
        ids = torch.cat([torch.zeros(TEXT, 3), grid(0, GRID), grid(1, CONTEXT)])
        self.rope = self.model.pos_embed(ids)

    def begin(self, i):
        m = self.model
        self.temb = m.time_text_embed(self.sigmas[i:i + 1] * 1000, torch.tensor([3500.0]), self.pooled)
        return m.x_embedder(self.tokens[i:i + 1]), m.context_embedder(self.states)

    def run(self, x, text, first, last):
        for block in self.blocks[first:last]:
            text, x = block(hidden_states=x, encoder_hidden_states=text, temb=self.temb, image_rotary_emb=self.rope)
        return x, text

    def finish(self, x):
        return self.model.proj_out(self.model.norm_out(x, self.temb))[0, :self.n]

    def change(self, now, before):
        now, before = now[:, :self.n], before[:, :self.n]
        return float((now - before).abs().mean() / before.abs().mean())


def grid(axis, size):
    out = torch.zeros(*size, 3)
    out[..., 0], out[..., 1], out[..., 2] = axis, torch.arange(size[0])[:, None], torch.arange(size[1])[None]
    return out.reshape(-1, 3)


@torch.no_grad()
def dbcache(p, warmup, threshold):
    """One block in front, one behind; the one between is skipped. Signal: the target rows alone."""
    before, gain, out, mask = None, None, [], []
    for i in range(STEPS):
        x0, text = p.begin(i)
        x, text = p.run(x0, text, 0, 1)
        compute = i < warmup or not p.change(x - x0, before) < threshold
        mask.append(compute)
        if compute:
            before, (y, t) = x - x0, p.run(x, text, 1, 2)
            gain = (y - x, t - text)
        x, text = p.run(x + gain[0], text + gain[1], 2, 3)
        out.append(p.finish(x))
    return out, mask


@torch.no_grad()
def teacache(p, threshold):
    """Kontext's polynomial; the first and the last always computed. Signal: block 0's modulated input, target rows."""
    before, gain, total, out, mask = None, None, 0.0, [], []
    for i in range(STEPS):
        x, text = p.begin(i)
        signal = p.model.transformer_blocks[0].norm1(x, emb=p.temb)[0]
        ends = i in (0, STEPS - 1)
        if not ends:
            r = p.change(signal, before)
            total += -1046.55119 * r**4 + 312.563399 * r**3 - 16.9500694 * r**2 + 0.410995971 * r + 0.0374537863
        compute = ends or not total < threshold
        before, total = signal, 0.0 if compute else total
        mask.append(compute)
        if compute:
            gain = p.run(x, text, 0, 3)[0] - x
        out.append(p.finish(x + gain))
    return out, mask


def policies():
    p = Pieces()
    for name, value in {'tokens': p.tokens, 'states': p.states[0], 'pooled': p.pooled, 'sigmas': p.sigmas}.items():
        save(f'policy-{name}', value)
    for name, (out, mask) in {'dbcache': dbcache(p, 2, 0.4), 'teacache': teacache(p, 0.12)}.items():
        print(name, ''.join('01'[m] for m in mask))
        assert 3 <= sum(mask) <= STEPS - 3
        save(f'policy-{name}-velocity', torch.stack(out))
        save(f'policy-{name}-mask', np.array(mask, np.int32))


@torch.no_grad()
def reuse():
    """flux-a at another t and other target tokens, its context's keys and values those of the first run."""
    model = FluxTransformer2DModel.from_pretrained(f'{HERE}/stages/flux-a').eval()
    target, context, text = (3, 5), (5, 4), 7
    n = context[0] * context[1]
    tokens = torch.from_numpy(np.load(f'{HERE}/stages/flux-a-tokens.npy'))[None]
    states = torch.from_numpy(np.load(f'{HERE}/stages/flux-a-states.npy'))[None]
    pooled = torch.from_numpy(np.load(f'{HERE}/stages/flux-a-pooled.npy'))
    later = tokens.clone()
    later[:, :-n] += 0.3 * torch.randn(later[:, :-n].shape, generator=torch.Generator().manual_seed(6))

    plain, kept, calls = transformer_flux.dispatch_attention_fn, [], []

    def attention(query, key, value, **options):
        if len(kept) <= len(calls):
            kept.append((key[:, -n:].clone(), value[:, -n:].clone()))
        else:
            key, value = key.clone(), value.clone()
            key[:, -n:], value[:, -n:] = kept[len(calls)]
        calls.append(1)
        return plain(query, key, value, **options)

    def run(x, sigma):
        calls.clear()
        return model(hidden_states=x, encoder_hidden_states=states, pooled_projections=pooled,
                     timestep=torch.tensor([sigma]), txt_ids=torch.zeros(text, 3),
                     img_ids=torch.cat([grid(0, target), grid(1, context)]), return_dict=False)[0][0, :-n]

    transformer_flux.dispatch_attention_fn = attention
    run(tokens, 0.9)
    save('reuse-velocity', run(later, 0.7))
    save('reuse-tokens', later[0])
    transformer_flux.dispatch_attention_fn = plain
    print('reuse: differs from a full run by', float((run(later, 0.7) - torch.from_numpy(
        np.load(f'{OUT}/reuse-velocity.npy'))).norm()))


def taylor(values, full, n):
    """The class's recurrence: values known at the evaluations in `full`, extrapolated elsewhere."""
    prev, cur, last, out = [None] * (n + 1), [None] * (n + 1), -1, []
    for t, y in enumerate(values):
        if full[t]:
            window, prev, cur = t - last, cur, [y] + [None] * n
            for i in range(n):
                if prev[i] is None or t <= 1:
                    break
                cur[i + 1] = (cur[i] - prev[i]) / window
            last = t
            out.append(y)
        else:
            out.append(sum(d * (t - last) ** i / math.factorial(i) for i, d in enumerate(cur) if d is not None))
    return out


def forecasts():
    rng = np.random.default_rng(2)
    cases, length = 40, 16
    values, full = rng.normal(size=(cases, length)), rng.random((cases, length)) < 0.5
    full[:, 0] = True
    save('taylor-values', values.astype(np.float32))
    save('taylor-full', full.astype(np.int32))
    for order in (1, 2):
        want = [taylor(list(v.astype(np.float32).astype(float)), f, order) for v, f in zip(values, full)]
        save(f'taylor-order{order}', np.array(want, np.float32))


def groups(x, h, w, ratio):
    """The token that each one joins (itself: none), and the parts of that choice. x [h * w, D] float64."""
    tokens = np.arange(h * w)
    is_dst = (tokens // w % 2 == 0) & (tokens % w % 2 == 0)
    src, dst = tokens[~is_dst], tokens[is_dst]
    unit = x / np.maximum(np.sqrt((x * x).sum(1, keepdims=True)), 1e-30)
    scores = (unit[src][:, None] * unit[dst][None]).sum(-1).astype(np.float32)
    best, score = scores.argmax(1), scores.max(1)
    order = sorted(range(len(src)), key=lambda i: (-score[i], i))
    into = tokens.copy()
    for i in order[:min(int(math.floor(h * w * ratio)), len(src))]:
        into[src[i]] = dst[best[i]]
    return into, best, score


def merge(name, h, w, ratio, seed):
    rng = np.random.default_rng(seed)
    x = rng.integers(-3, 4, (h * w, 8)).astype(np.float64)
    x[rng.integers(0, h * w, h * w // 3)] = x[rng.integers(0, h * w, h * w // 3)]  # equal rows: equal scores
    into, best, score = groups(x, h, w, ratio)
    mean = np.stack([x[into == t].mean(0) for t in np.unique(into)])
    for key, value in {'x': x.astype(np.float32), 'best': best.astype(np.int32), 'score': score,
                       'into': into.astype(np.int32), 'mean': mean.astype(np.float32)}.items():
        save(f'{name}-{key}', value)


@torch.no_grad()
def merged_forward(ratio):
    """flux-a with its first single block on merged tokens: groups are means at the owner's position, and every token
    gets what its group has gained."""
    m = FluxTransformer2DModel.from_pretrained(f'{HERE}/stages/flux-a').eval()
    target, context, text = (3, 5), (5, 4), 7
    tokens, states, pooled = (torch.from_numpy(np.load(f'{HERE}/stages/flux-a-{n}.npy'))
                              for n in ('tokens', 'states', 'pooled'))
    temb = m.time_text_embed(torch.tensor([700.0]), pooled)
    cos, sin = m.pos_embed(torch.cat([torch.zeros(text, 3), grid(0, target), grid(1, context)]))
    x, t = m.x_embedder(tokens[None]), m.context_embedder(states[None])
    t, x = m.transformer_blocks[0](hidden_states=x, encoder_hidden_states=t, temb=temb, image_rotary_emb=(cos, sin))
    owner, means, rows, at = [], [], list(range(text)), 0
    for h, w in (target, context):
        part = x[0, at:at + h * w]
        norm = torch.nn.functional.layer_norm(part.double(), part.shape[-1:], eps=1e-6)
        into, _, _ = groups(norm.numpy(), h, w, ratio)
        kept = np.unique(into)
        owner += [sum(map(len, means)) + int(np.searchsorted(kept, i)) for i in into]
        means.append(torch.stack([part[into == k].mean(0) for k in kept]))
        rows += [text + at + int(k) for k in kept]
        at += h * w
    small = torch.cat(means)[None]
    t, big = m.single_transformer_blocks[0](hidden_states=small, encoder_hidden_states=t, temb=temb,
                                            image_rotary_emb=(cos[rows], sin[rows]))
    x = x + (big - small)[:, owner]
    _, x = m.single_transformer_blocks[1](hidden_states=x, encoder_hidden_states=t, temb=temb,
                                          image_rotary_emb=(cos, sin))
    save('merged-velocity', m.proj_out(m.norm_out(x, temb))[0, :target[0] * target[1]])
    print('merged rows', small.shape[1], 'of', x.shape[1])


os.makedirs(OUT, exist_ok=True)
first_block()
policies()
reuse()
forecasts()
merge('merge-a', 6, 8, 0.4, 3)
merge('merge-b', 5, 7, 0.75, 4)
merge('merge-c', 9, 4, 0.1, 5)
merged_forward(0.4)
