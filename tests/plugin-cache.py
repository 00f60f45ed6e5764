#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The plugin as GStreamer's documentation describes plugins (gst_plugins_cache.json), by introspection.

usage: GST_PLUGIN_PATH_1_0=build/gst tests/plugin-cache.py > docs/gst_plugins_cache.json
       exit status 77: GStreamer is not 1.22, whose formats of video the file has
"""
import json
import sys

import gi
gi.require_version('Gst', '1.0')
from gi.repository import GObject, Gst

PLUGIN = 'fluxkontext'
MUTABLE = ((Gst.PARAM_MUTABLE_PLAYING, 'playing'), (Gst.PARAM_MUTABLE_PAUSED, 'paused'), (Gst.PARAM_MUTABLE_READY, 'ready'))
OWN = ('GstFluxKontext', 'Fk')


def plain(value):
    if value is None:
        return 'NULL'
    if isinstance(value, bool):
        return str(value).lower()
    nick = getattr(value, 'value_nick', None)
    return '%s (%d)' % (nick, int(value)) if nick else str(value)


def property_of(spec, types):
    flags = spec.flags
    entry = {'blurb': spec.blurb, 'type': spec.value_type.name,
             'conditionally-available': bool(flags & Gst.PARAM_CONDITIONALLY_AVAILABLE),
             'construct': bool(flags & GObject.ParamFlags.CONSTRUCT),
             'construct-only': bool(flags & GObject.ParamFlags.CONSTRUCT_ONLY),
             'controllable': bool(flags & Gst.PARAM_CONTROLLABLE),
             'mutable': next((name for flag, name in MUTABLE if flags & flag), 'null'),
             'readable': bool(flags & GObject.ParamFlags.READABLE), 'writable': bool(flags & GObject.ParamFlags.WRITABLE)}
    for name in ('minimum', 'maximum'):
        if hasattr(spec, name):
            entry[name[:3]] = plain(getattr(spec, name))
    if hasattr(spec, 'default_value'):
        entry['default'] = plain(spec.default_value)
    if spec.value_type.is_a(GObject.TYPE_ENUM) and spec.value_type.name.startswith(OWN):
        types[spec.value_type.name] = {'kind': 'enum', 'values': [
            {'name': value.value_nick, 'desc': value.value_name, 'value': str(int(value))}
            for _, value in sorted(spec.enum_class.__enum_values__.items())]}
    return entry


def ancestors(kind):
    names = []
    while kind != GObject.TYPE_INVALID:
        names.append(kind.name)
        kind = kind.parent
    return names


def signal_of(name, kind):
    query = GObject.signal_query(name, kind)
    flags = query.signal_flags
    when = 'first' if flags & GObject.SignalFlags.RUN_FIRST else 'last' if flags & GObject.SignalFlags.RUN_LAST else 'cleanup'
    return {'args': [{'name': 'arg%d' % i, 'type': t.name} for i, t in enumerate(query.param_types)],
            'action': bool(flags & GObject.SignalFlags.ACTION), 'return-type': query.return_type.name, 'when': when}


def element_of(factory, types):
    factory = factory.load()
    kind = factory.get_element_type()
    element = factory.create()
    meta = factory.get_metadata
    entry = {'author': meta('author'), 'description': meta('description'), 'klass': meta('klass'),
             'long-name': meta('long-name'), 'rank': {0: 'none', 64: 'marginal', 128: 'secondary', 256: 'primary'}[factory.get_rank()],
             'hierarchy': ancestors(kind), 'interfaces': sorted(t.name for t in kind.interfaces),
             'pad-templates': {t.name_template: {'caps': t.get_caps().to_string(), 'direction': t.direction.value_nick,
                                                 'presence': t.presence.value_nick}
                               for t in factory.get_static_pad_templates()},
             'properties': {p.name: property_of(p, types) for p in element.list_properties() if p.owner_type == kind}}
    signals = GObject.signal_list_names(kind)
    if signals:
        entry['signals'] = {name: signal_of(name, kind) for name in signals}
    return entry


def cache():
    registry = Gst.Registry.get()
    plugin = registry.find_plugin(PLUGIN)
    if plugin is None:
        sys.exit('no plugin %s in GST_PLUGIN_PATH_1_0' % PLUGIN)
    types = {}
    elements = {f.get_name(): element_of(f, types) for f in registry.get_feature_list_by_plugin(PLUGIN)
                if isinstance(f, Gst.ElementFactory)}
    return {PLUGIN: {'description': plugin.get_description(), 'elements': elements,
                     'filename': 'gst' + PLUGIN, 'license': plugin.get_license(), 'other-types': types,
                     'package': plugin.get_package(), 'source': plugin.get_source(), 'tracers': {}, 'url': plugin.get_origin()}}


def main():
    Gst.init(None)
    if Gst.version()[:2] != (1, 22):
        print('GStreamer is %d.%d: formats of video are those of 1.22' % Gst.version()[:2], file=sys.stderr)
        sys.exit(77)
    json.dump(cache(), sys.stdout, indent=4, sort_keys=True, ensure_ascii=False)
    print()


main()
