/* SPDX-License-Identifier: Apache-2.0 */
/* The networks whose numbers tests/golden holds: that of the demo checkpoint and two random ones. */
#ifndef TEST_NETWORKS_H
#define TEST_NETWORKS_H

#include "flux.h"

static const FkFluxConfig demo_flux = {.patch_size = 1,
                                       .in_channels = 64,
                                       .out_channels = 64,
                                       .layers = 2,
                                       .single_layers = 5,
                                       .heads = 2,
                                       .head_width = 128,
                                       .joint_width = 256,
                                       .pooled_width = 128,
                                       .guidance_embeds = true,
                                       .axes = {16, 56, 56}};

static const FkFluxConfig flux_a = {.patch_size = 1,
                                    .in_channels = 16,
                                    .out_channels = 16,
                                    .layers = 1,
                                    .single_layers = 2,
                                    .heads = 3,
                                    .head_width = 16,
                                    .joint_width = 40,
                                    .pooled_width = 24,
                                    .guidance_embeds = false,
                                    .axes = {4, 6, 6}};

static const FkFluxConfig flux_b = {.patch_size = 1,
                                    .in_channels = 16,
                                    .out_channels = 16,
                                    .layers = 2,
                                    .single_layers = 1,
                                    .heads = 2,
                                    .head_width = 32,
                                    .joint_width = 24,
                                    .pooled_width = 32,
                                    .guidance_embeds = true,
                                    .axes = {8, 12, 12}};

#endif
