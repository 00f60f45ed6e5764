# SPDX-License-Identifier: Apache-2.0
"""Raw video files as GStreamer writes them: what of their bytes is picture. Padding may be anything."""


def up(value, multiple):
    return (value + multiple - 1) // multiple * multiple


def planes(name, w, h):
    """(bytes that are seen, rows that are seen, stride, rows) of each plane, as GstVideoInfo lays them out."""
    cw, ch = (w + 1) // 2, (h + 1) // 2
    if name in ('RGB', 'BGR'):
        return [(3 * w, h, up(3 * w, 4), h)]
    if name in ('RGBA', 'BGRA', 'RGBx', 'BGRx', 'ARGB', 'ABGR'):
        return [(4 * w, h, 4 * w, h)]
    if name == 'I420':
        return [(w, h, up(w, 4), up(h, 2))] + [(cw, ch, up(up(w, 2) // 2, 4), ch)] * 2
    depth = {'NV12': 1, 'P010_10LE': 2}[name]
    return [(w * depth, h, up(w * depth, 4), up(h, 2)), (2 * cw * depth, ch, up(w * depth, 4), ch)]


def seen(data, layout, frames):
    """The rows that are seen of all frames; None where the file has another size."""
    rows, at = [], 0
    for _ in range(frames):
        for width, height, stride, allocated in layout:
            rows += [data[at + y * stride:at + y * stride + width] for y in range(height)]
            at += stride * allocated
    return rows if at == len(data) else None
