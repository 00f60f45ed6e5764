# SPDX-License-Identifier: Apache-2.0
"""Writes schedulers.txt: ladders and whole trajectories of diffusers' schedulers, for tests/test-scheduler.c.

ladder lines: name, tokens, steps, then steps + 1 sigmas of FlowMatchEulerDiscreteScheduler.
case lines: solver, steps ("deis-double": the same float32 sigmas, arithmetic in double); followed by lines "sigmas"
(steps + 1), "times" (one per evaluation), "x" (8 starting values) and, per evaluation, "v" (velocities fed) and "x"
(sample returned). Samples are float32.

Run: python make_schedulers.py > schedulers.txt   (torch, diffusers, scipy)
"""
import numpy as np
import torch
from diffusers import (DEISMultistepScheduler, DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler,
                       FlowMatchHeunDiscreteScheduler, UniPCMultistepScheduler)
from diffusers.pipelines.flux.pipeline_flux_kontext import calculate_shift

DYNAMIC = dict(base_image_seq_len=256, max_image_seq_len=4096, base_shift=0.5, max_shift=1.15, shift=3.0,
               num_train_timesteps=1000, use_dynamic_shifting=True)
FLOW = dict(prediction_type="flow_prediction", use_flow_sigmas=True, use_dynamic_shifting=True)
LADDERS = {
    "flow": {},
    "karras": dict(use_karras_sigmas=True),
    "exponential": dict(use_exponential_sigmas=True),
    "beta": dict(use_beta_sigmas=True),
    "static": dict(use_dynamic_shifting=False),
    "schnell": dict(use_dynamic_shifting=False, shift=1.0),
    "linear": dict(time_shift_type="linear"),
    "terminal": dict(shift_terminal=0.02),
}


def text(values):
    return " ".join(f"{float(v):.9g}" for v in values)


def passed(steps):
    return np.linspace(1.0, 1 / steps, steps)


def euler(tokens, steps, **kw):
    s = FlowMatchEulerDiscreteScheduler(**{**DYNAMIC, **kw})
    s.set_timesteps(sigmas=passed(steps), mu=calculate_shift(tokens) if s.config.use_dynamic_shifting else None)
    return s


for name, kw in LADDERS.items():
    for tokens, steps in ((4096, 4), (4096, 10), (4096, 28), (256, 28), (1024, 20), (256, 2), (4080, 50)):
        print("ladder", name, tokens, steps, text(euler(tokens, steps, **kw).sigmas))


def schedulers(steps):
    yield "euler", euler(4096, steps)
    s = DPMSolverMultistepScheduler(solver_order=2, **FLOW)
    s.set_timesteps(steps, mu=1.15)
    yield "dpmpp-2m", s
    s = UniPCMultistepScheduler(solver_order=2, **FLOW)
    s.set_timesteps(sigmas=passed(steps), mu=1.15)
    yield "unipc", s
    s = DEISMultistepScheduler(solver_order=2, **FLOW)
    s.set_timesteps(steps, mu=1.15)
    yield "deis", s
    s = DEISMultistepScheduler(solver_order=2, **FLOW)
    s.set_timesteps(steps, mu=1.15)
    s.sigmas = s.sigmas.double()
    yield "deis-double", s
    s = FlowMatchHeunDiscreteScheduler(shift=3.0)
    s.set_timesteps(steps)
    yield "heun", s


rng = np.random.default_rng(0)
for steps in (4, 10, 20, 28):
    for name, s in schedulers(steps):
        sigmas = s.sigmas.tolist()
        x = torch.from_numpy(rng.standard_normal((2, 4)).astype(np.float32)).to(s.sigmas.dtype)
        print("case", name, steps)
        print("sigmas", text(sigmas[:1] + sigmas[1::2] if name == "heun" else sigmas))
        print("times", text(s.timesteps.tolist()))
        print("x", text(x.flatten()))
        for t in s.timesteps:
            v = 0.7 * torch.sin(3 * x + float(t) / 300) - 0.4 * x
            x = s.step(v, t, x, return_dict=False)[0]
            print("v", text(v.flatten()))
            print("x", text(x.flatten()))
