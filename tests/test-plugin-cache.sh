#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# docs/gst_plugins_cache.json, the plugin as GStreamer's documentation describes plugins, is what the plugin says.
. "$(dirname "$0")/tap.sh"
python=
for candidate in python3 /usr/bin/python3; do
  "$candidate" -c 'import gi; gi.require_version("Gst", "1.0")' >"$log" 2>&1 && python=$candidate && break
done
if [ -z "$python" ]; then
  skip /plugin-cache "python3-gi or gir1.2-gstreamer-1.0 is missing"
  done_testing
fi
status=0
"$python" "$FK_SOURCE/tests/plugin-cache.py" >cache.json 2>"$log" || status=$?
if [ $status -eq 77 ]; then
  skip /plugin-cache "$(cat "$log")"
else
  diff -u "$FK_SOURCE/docs/gst_plugins_cache.json" cache.json >"$log" 2>&1
  status=$?
  echo 'GST_PLUGIN_PATH_1_0=build/gst tests/plugin-cache.py > docs/gst_plugins_cache.json' >>"$log"
  check /plugin-cache $status
fi
done_testing
