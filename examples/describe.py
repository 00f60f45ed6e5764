#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the man pages and completions of the tools from their own --help and the table of properties.

usage: examples/describe.py FOLDER VERSION DOCTOR TOOL...

DOCTOR and TOOLs are the built programs. Into FOLDER: TOOL.1 for each, fluxkontext-properties.7, TOOL.bash for each (they
are equal: bash looks for a file by the name of the command), and _fluxkontext for zsh.

A --help is: examples (lines with two blanks in front), sentences, "Exit: ..." with the exit status, then GLib's usage and
list of options.
"""
import os, re, subprocess, sys
from pathlib import Path


def output(*command):
    env = dict(os.environ, LC_ALL='C.UTF-8', ASAN_OPTIONS='detect_leaks=0')
    return subprocess.run(command, env=env, check=True, capture_output=True, encoding='utf-8').stdout


class Tool:
    def __init__(self, path):
        self.name = Path(path).name
        text = output(path, '--help')
        head, _, rest = text.partition('\nUsage:\n')
        lines = head.strip('\n').split('\n')
        self.examples = [line.strip() for line in lines if line.startswith('  ')]
        self.exit = ' '.join(line for line in lines if line.startswith('Exit: '))[6:]
        self.words = [line for line in lines if line and not line.startswith(('  ', 'Exit: '))]
        self.usage = rest.split('\n')[0].strip().replace('[OPTION…]', '[OPTION...]') or f'{self.name} [TOOL [ARGUMENT...]]'
        # short, long, argument, help
        self.options = re.findall(r'^  (?:-(\w), )?--([\w-]+)(?:=(.+?))?(?:  +(.*))?$', rest, re.M)
        if not rest: self.tools = [line.strip() for line in lines if re.match(r'  [a-z-]+  ', line)]
        if not rest: self.examples = self.examples[:1]


def properties(doctor):
    """[(name, values, help)] of the Markdown tables."""
    rows, columns = [], []
    for line in output(doctor, '--properties').split('\n'):
        if not line.startswith('| '): continue
        cells = [cell.strip() for cell in line.strip('|').split(' | ')]
        if cells[0] == 'property': columns = cells
        if cells[0].startswith('`'): rows.append((cells[0].strip('`'), cells[columns.index('values')], cells[-1].rstrip('| ')))
    return rows


def roff(text):
    text = text.replace('\\', '\\e').replace('-', '\\-').replace('`', '')
    return '\\&' + text if text[:1] in '.\'' else text


def man(tool, version, names):
    first = tool.words[0].split('. ')[0].rstrip('.:')
    out = [f'.TH {tool.name.upper()} 1 "" "fluxkontext {version}"', '.SH NAME', roff(f'{tool.name} - {first}'),
           '.SH SYNOPSIS', '.nf', roff(tool.usage), '.fi', '.SH DESCRIPTION']
    out += [roff(line) for line in tool.words if not re.match(r'.*:$', line)] or [roff(first)]
    for line in getattr(tool, 'tools', []):
        what, _, does = line.partition(' ')
        out += ['.TP', f'.B {roff(what)}', roff(does.strip())]
    if tool.examples: out += ['.SH EXAMPLES', '.nf'] + [roff(e) for e in tool.examples] + ['.fi']
    if tool.options: out.append('.SH OPTIONS')
    for short, long, argument, text in tool.options:
        value = f'=\\fI{roff(argument)}\\fR' if argument else ''
        out += ['.TP', (f'\\fB\\-{short}\\fR, ' if short else '') + f'\\fB\\-\\-{roff(long)}\\fR{value}', roff(text)]
    if tool.exit: out += ['.SH EXIT STATUS', roff(tool.exit)]
    out += ['.SH SEE ALSO', ', '.join(f'.BR {roff(n)} (1)'[4:].replace(' (', '(') for n in names if n != tool.name) +
            ', fluxkontext\\-properties(7)']
    return '\n'.join(out) + '\n'


def man_properties(rows, version):
    out = [f'.TH FLUXKONTEXT-PROPERTIES 7 "" "fluxkontext {version}"', '.SH NAME',
           'fluxkontext\\-properties \\- what can be set: PROPERTY=VALUE of the tools and of the element', '.SH PROPERTIES']
    for name, values, text in rows: out += ['.TP', f'\\fB{roff(name)}\\fR ({roff(values)})', roff(text)]
    return '\n'.join(out) + '\n'


def choices(values):
    """Words that can follow NAME=; none where it is a number or a text."""
    return values.split(', ') if re.fullmatch(r'[\w-]+(, [\w-]+)+', values) else []


def bash(tools, rows):
    options = '\n'.join(f'    {t.name}) options="{" ".join("--" + o[1] + ("=" if o[2] else "") for o in t.options)}" ;;'
                        for t in tools if t.options)
    values = '\n'.join(f'    {name}) words="{" ".join(choices(v))}" ;;' for name, v, _ in rows if choices(v))
    names = ' '.join(name + '=' for name, _, _ in rows)
    tool_words = ' '.join(t.name[12:] for t in tools if t.options)
    return f'''# bash completion of the fluxkontext tools; made by examples/describe.py
_fluxkontext() {{
  local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD - 1]}} tool=${{1##*/}} key= words= options=
  COMPREPLY=()
  if [ "$tool" = fluxkontext ]; then
    if [ "$COMP_CWORD" -eq 1 ]; then
      mapfile -t COMPREPLY < <(compgen -W "{tool_words} --help --version" -- "$cur")
      return
    fi
    tool=fluxkontext-${{COMP_WORDS[1]}}
  fi
  # "=" is a word of its own.
  if [ "$cur" = = ]; then
    key=$prev cur=
  elif [ "$prev" = = ] && [ "$COMP_CWORD" -ge 3 ]; then
    key=${{COMP_WORDS[COMP_CWORD - 2]}}
  fi
  case $key in
{values}
  esac
  if [ -n "$words" ]; then
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
    return
  fi
  case $tool in
{options}
  esac
  if [ -z "$key" ]; then
    case $cur in
    -*) mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur") ;;
    ?*) mapfile -t COMPREPLY < <(compgen -W "{names}" -- "$cur") ;;
    esac
  fi
  case "${{COMPREPLY[*]}}" in *=) compopt -o nospace 2>/dev/null ;; esac
  [ ${{#COMPREPLY[@]}} -gt 0 ] || {{
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen -f -- "$cur")
  }}
}}
complete -F _fluxkontext fluxkontext {" ".join(t.name for t in tools if t.options)}
'''


def zsh_text(text):
    return re.sub(r"[\[\]:`]", ' ', text).replace("'", "'\\''")


def zsh(tools, rows):
    def option(short, long, argument, text):
        tail = f'[{zsh_text(text)}]' + (f':{zsh_text(argument)}:_files' if argument else '')
        return f"'--{long}{'=' if argument else ''}{tail}'" + (f" '-{short}{'+' if argument else ''}{tail}'" if short else '')
    cases = '\n'.join(f"  {t.name}) opts=({' '.join(option(*o) for o in t.options)}) ;;" for t in tools if t.options)
    values = '\n'.join(f"    {name}) vals=({' '.join(choices(v))}) ;;" for name, v, _ in rows if choices(v))
    names = ' '.join(f"'{name}:{zsh_text(text.split('. ')[0])}'" for name, _, text in rows)
    tool_words = ' '.join(t.name[12:] for t in tools if t.options)
    return f'''#compdef fluxkontext {" ".join(t.name for t in tools if t.options)}
# zsh completion of the fluxkontext tools; made by examples/describe.py
local -a opts names vals
local state
if [[ $service == fluxkontext ]]; then
  if (( CURRENT == 2 )); then
    compadd {tool_words} --help --version
    return
  fi
  service=fluxkontext-$words[2]
  shift words
  (( CURRENT-- ))
fi
case $service in
{cases}
esac
names=({names})
_arguments -S $opts '*:argument:->rest' && return
if [[ $state == rest ]]; then
  vals=()
  case ${{PREFIX%%=*}} in
{values}
  esac
  if [[ $PREFIX == *=* && -n $vals ]]; then
    compset -P '*='
    compadd -a vals
  else
    _describe -t properties property names -qS =
    _files
  fi
fi
'''


def main():
    folder, version, doctor, *paths = sys.argv[1:]
    folder = Path(folder)
    tools, rows = [Tool(path) for path in paths], properties(doctor)
    names = [t.name for t in tools]
    for t in tools:
        (folder / f'{t.name}.1').write_text(man(t, version, names), encoding='utf-8')
        (folder / f'{t.name}.bash').write_text(bash(tools, rows), encoding='utf-8')
    (folder / 'fluxkontext-properties.7').write_text(man_properties(rows, version), encoding='utf-8')
    (folder / '_fluxkontext').write_text(zsh(tools, rows), encoding='utf-8')


main()
