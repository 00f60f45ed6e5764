# SPDX-License-Identifier: Apache-2.0
"""Token ids of transformers for generated strings, for test-tokenizer-clip.c and test-tokenizer-t5.c.

usage: make_tokens.py CHECKPOINT [OUT] [--count N] [--wide-count N] [--seed N] [--train]

CHECKPOINT is the demo checkpoint. Its two tokenizers know few pieces, so there are two more, trained here on made-up
words of many scripts: tokens/clip (merges partly out of order, added tokens of both kinds) and tokens/t5 (100 extra
ids). They are kept unless --train is given, because training does not give the same model twice. The ids come from
transformers' own fast tokenizers, called as the pipeline calls them.

Writes OUT/tokens-{clip,t5}-{demo,wide}.jsonl.gz and OUT/tokens-t5-plain.jsonl.gz. The first line of each says versions,
length and pad id; every other line is [text, ids without padding, truncated] or, for long texts,
[text, ids, truncated, repetitions].
"""
import argparse
import base64
import gzip
import json
import os
import random
import shutil
import tempfile

import sentencepiece
import tokenizers
import transformers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

WORDS = '''make the cat wear a red hat change car color to keep everything else identical it night add shape replace
sky with sunset photo of person in style oil painting remove background turn into watercolor don't it's we've you're
I'd they'll O'Neil rock'n'roll 2024 3.14 1st 50% #1 R2-D2 http://x.y/z?q=1 @home (v1.0) [a] {b} a_b c++ "quoted"
don’t “x” … —'''.split()
SPECIALS = '''<|startoftext|> <|endoftext|> <|EndOfText|> <|STARTOFTEXT|> </s> <pad> <unk> <extra_id_0> <extra_id_99>
<extra_id_100> <extra_id_ <|endoftext <my <Loud> <loud> ＜pad＞ ＜／s＞ ＜extra_id_7＞ </s <<s> <s> ▁ ▁▁ </w>'''.split()
SPECIALS += ['<my style>', '<MY STYLE>', '<my\t style>']
CASES = 'İ İSTANBUL ß ẞ STRASSE Σ ΟΔΟΣ ς ǅ ŉ ﬃ Ⅷ Ⓐ Ꭰ ꭰ K Å Ω ϴ ﬁ'.split()
JOINED = '👨‍👩‍👧 👩🏽‍🚀 🏳️‍🌈 🇩🇪 🇩🇪🇫 👍🏿 ❤️ 1️⃣ ☝🏼 🧑‍🤝‍🧑 ©️ ™️ Ⓜ️ 🏴󠁧󠁢󠁥󠁮󠁧󠁿'.split()
RIGHT_TO_LEFT = ['שָׁלוֹם', 'مرحبا', 'السَّلَامُ', 'ﷺ', 'ﷲ', '؀١٢', 'فارسی\u200c', '\u202eabc\u202c', '\u200f!', 'ܫܠܡܐ']
SPACES = list(' \t\n\x0b\x0c\x85\xa0\u1680\u2003\u200b\u2028\u2029\u202f\u205f\u3000\ufeff\u180e\u2060\xad')
SPACES += ['  ', '\r\n']
SCRIPTS = [(0x41, 0x5A), (0x61, 0x7A), (0xC0, 0x24F), (0x370, 0x3FF), (0x400, 0x45F), (0x5D0, 0x5EA), (0x620, 0x64A),
           (0x904, 0x939), (0xE01, 0xE30), (0x3041, 0x3096), (0x30A1, 0x30FA), (0x4E00, 0x4E7F), (0xAC00, 0xAC7F)]
MARKS = [(0x300, 0x36F), (0x483, 0x489), (0x591, 0x5BD), (0x64B, 0x65F), (0x900, 0x903), (0x93A, 0x94F),
         (0x1AB0, 0x1ACE), (0x1DC0, 0x1DFF), (0x20D0, 0x20F0), (0xFE00, 0xFE0F), (0xFE20, 0xFE2F),
         (0x3099, 0x309A), (0x7EB, 0x7F3), (0x200C, 0x200D), (0xD3B, 0xD4D), (0xC3C, 0xC3C),
         (0x11070, 0x11070), (0x11930, 0x11938)]
MAPPED = [(0xA0, 0xBF), (0x1E00, 0x1EFF), (0x1F00, 0x1FFF), (0x2000, 0x218F), (0x2460, 0x24FF), (0x3130, 0x318F),
          (0x3200, 0x33FF), (0xF900, 0xFAFF), (0xFB00, 0xFDFF), (0xFE30, 0xFFEF), (0x1D400, 0x1D7FF),
          (0x1F100, 0x1F1FF), (0x2F800, 0x2FA1F)]
JAMO = [(0x1100, 0x11FF), (0xA960, 0xA97C), (0xD7B0, 0xD7FB), (0x3131, 0x318E), (0xFFA0, 0xFFDC), (0xAC00, 0xD7A3)]
INDIC = [(0x900, 0xD7F), (0xE00, 0xFFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x1A20, 0x1AAF), (0x11000, 0x114FF)]


# Pieces that make two ways through a word cost the same, and two that differ by less than float32 sums can tell.
TIED = [('ɸ', -9), ('ʬ', -9), ('ɸʬ', -8), ('ʬɸ', -8), ('ʘ', -5), ('ʢ', -5), ('ʘʢ', -4), ('ʢʘ', -4.0000005)]
TIES = ['ɸʬɸ', 'ʬɸʬ', 'ɸʬɸʬɸ', 'ʘʢʘ', 'ʢʘʢ', 'ʘʢʘʢʘ', 'xɸʬɸx']
# Clusters of fewer than six bytes that a pictograph with a joiner before them takes in, or does not.
PICTURES = '©\u200d™\u0301 👍\u200dⓂ\u0301 👍🏿\u200d‼\u0301 x\u200d™\u0301 👍\u200d\u200d™\u0301'.split()
PICTURES += '👍\u200d\u0301™\u0301 🇩\u200dℹ\u0301 ㊗\u200d㊙\u0301 \u0915\u094d\u0958\u0301'.split()
PICTURES += '\u0915\u094d\u093e\u0958\u0301 a\u094d\u0958\u0301 \u0915\u200c\u094d\u0958\u0301'.split()
PICTURES += '\u0915\u200d\u094d\u0958\u0301 \u0600²\u0301 \u0600á\u0301 ²\u0903 ²\u102b'.split()
COMPOSED = '\U00011935\U00011930 \U00011938\u0334 \u0915\U00011070\u0334 \u1100\u1161\u11a8 가\u11a8 \u0958'.split()
COMPOSED += ['Å\u0323']


def character(r, ranges):
    low, high = r.choice(ranges)
    return chr(r.randint(low, high))


def anything(r):
    """Any code point but NUL and surrogates: assigned or not, of every plane."""
    plane = r.choice([0, 0, 0, 1, 1, 2, 3, r.randint(4, 16)])
    code = plane << 16 | r.randint(0, 0xFFFF)
    return chr(code) if code and not 0xD800 <= code < 0xE000 else 'x'


def cluster(r):
    """A base with marks: the base may have a mapping of its own, and pictographs and conjuncts join further."""
    base = character(r, r.choice([SCRIPTS, MAPPED, MAPPED, INDIC, JAMO]))
    text = base + ''.join(character(r, MARKS) for _ in range(r.choice([1, 1, 2, 3])))
    if r.random() < .15:
        text += '\u200d' + r.choice(['™', 'ℹ', 'Ⓜ', '‼', '㊗', '👍', '©']) + character(r, MARKS)
    if r.random() < .1:
        conjunct = r.choice('क\u0995ണ\u1000') + r.choice('\u094d\u09cd\u0d4d\u1039')
        text = conjunct + r.choice('\u0958\u09dc\u0b5c') + character(r, MARKS)
    return r.choice(['', '', '', '\u0600', '\u06dd']) + text


def words(r, n):
    return ' '.join(r.choice(WORDS) for _ in range(n))


def mixed(r):
    pick = [lambda: r.choice(WORDS), lambda: r.choice(SPACES), lambda: r.choice(CASES), lambda: r.choice(JOINED),
            lambda: r.choice(RIGHT_TO_LEFT), lambda: anything(r), lambda: cluster(r), lambda: character(r, SCRIPTS),
            lambda: character(r, [(1, 0x7F)]), lambda: str(r.randint(0, 10 ** 6))]
    return ''.join(r.choice(pick)() for _ in range(r.randint(1, 14)))


def recase(r, text):
    return ''.join(c.upper() if r.random() < .3 else c for c in text)


def made_words(r, count):
    """Words of one script each, some with marks or compatibility characters: a vocabulary for training."""
    made = []
    for _ in range(count):
        script = [r.choice(SCRIPTS)]
        made.append(''.join(character(r, script) for _ in range(r.randint(1, 6))))
    return made


def several(r, texts, most):
    return ''.join(r.choice(texts) for _ in range(r.randint(1, most)))


CONTROLS = SPACES + ['\x01', '\x07', '\x1b', '\x7f', '\x80', '\x9f', 'a']
CONTRACTIONS = "' 's 'T 're 'VE 'm 'll 'd a 1 ! '' ’s".split() + [' ']
REPEATED = 'a o ! . ha ▁ é 日 =-'.split()


def generate(r, vocabulary):
    """One string of a random kind."""
    kinds = [(16, lambda: words(r, r.randint(1, 14))),
             (6, lambda: recase(r, words(r, r.randint(1, 8)))),
             (12, lambda: ' '.join(r.choice(vocabulary) for _ in range(r.randint(1, 12)))),
             (6, lambda: several(r, vocabulary, 16)),
             (8, lambda: ''.join(anything(r) for _ in range(r.randint(1, 16)))),
             (10, lambda: ''.join(cluster(r) for _ in range(r.randint(1, 6)))),
             (5, lambda: ''.join(character(r, JAMO + MARKS[:1]) for _ in range(r.randint(1, 12)))),
             (5, lambda: ''.join(character(r, MAPPED) for _ in range(r.randint(1, 12)))),
             (7, lambda: several(r, SPECIALS * 2 + WORDS + [' ', "'", '!'] * 20, 8)),
             (3, lambda: several(r, CONTROLS, 8)),
             (4, lambda: several(r, CONTRACTIONS, 12)),
             (4, lambda: r.choice(REPEATED) * r.randint(1, 60) + r.choice(['', 'b', ' x'])),
             (14, lambda: mixed(r))]
    return r.choices([k for _, k in kinds], [w for w, _ in kinds])[0]()


def fixed():
    """Strings that every run has: each list above, edges of the length, and texts of about a megabyte."""
    singles = ['', ' ', '   ', '\n', 'a', '\u0301', '\ufffd', '\x01', '\x7f', '\ufeff']
    singles += SPECIALS + CASES + JOINED + RIGHT_TO_LEFT + SPACES + WORDS + PICTURES + COMPOSED
    singles += [a + b for a in TIES for b in [''] + [' ' + t for t in TIES] + TIES + list('abcdefgh日')]
    rows = [(s, 1) for s in singles] + [(a + b, 1) for a in CASES + JOINED + SPECIALS for b in ('\u0301', ' x', 'A')]
    rows += [('a ', n) for n in (61, 62, 63, 64, 65, 74, 75, 76, 77, 78, 127, 128)]
    rows += [('x', 300), ('!', 300), ('ab', 200), ('日本', 100)]
    long = ['a', 'make it night ', '\u0301', 'a\u0323\u0301\u0327', 'ab', '!', '日', '<', '<|endoftext|',
            '👨\u200d', 'ﷺ', ' ', '1', '가', '\u1100\u1161']
    return rows + [(s, (1 << 20) // len(s.encode())) for s in long]


def byte_letters():
    plain = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    rest = [b for b in range(256) if b not in plain]
    return [chr(b) for b in plain] + [chr(256 + i) for i in range(len(rest))]


def special(text, normalized):
    return {'content': text, 'lstrip': False, 'normalized': normalized, 'rstrip': False, 'single_word': False,
            'special': True}


def write_json(path, value, **options):
    with open(path, 'w', encoding='utf-8') as f:
        json.dump(value, f, ensure_ascii=False, **options)
        f.write('\n')


def train_clip(folder, r, vocabulary):
    pattern = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    model = Tokenizer(models.BPE(end_of_word_suffix='</w>'))
    split = pre_tokenizers.Split(Regex(pattern), 'removed', invert=True)
    model.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    lines = [' '.join(r.choice(vocabulary + WORDS) for _ in range(10)).lower() for _ in range(3000)]
    model.train_from_iterator(lines, trainers.BpeTrainer(
        vocab_size=2400, min_frequency=2, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix='</w>', show_progress=False))
    merges = [tuple(m.split(' ')) if isinstance(m, str) else tuple(m)
              for m in json.loads(model.to_str())['model']['merges']]
    letters = byte_letters()
    tokens = letters + [c + '</w>' for c in letters] + [a + b for a, b in merges] + ['<|startoftext|>', '<|endoftext|>']
    tokens = list(dict.fromkeys(tokens))
    # A merge may now come before the one that makes its left half: the order of merging is then seen.
    for i in range(len(merges)):
        if r.random() < .2:
            k = r.randrange(len(merges))
            merges[i], merges[k] = merges[k], merges[i]
    os.makedirs(folder, exist_ok=True)
    write_json(f'{folder}/vocab.json', {t: i for i, t in enumerate(tokens)})
    with open(f'{folder}/merges.txt', 'w', encoding='utf-8') as f:
        f.write('#version: 0.2\n' + ''.join(f'{a} {b}\n' for a, b in merges))
    n = len(tokens)
    added = {n - 2: special('<|startoftext|>', True), n - 1: special('<|endoftext|>', False),
             n: special('<Loud>', False), n + 1: special('<my style>', True), n + 2: special('<my', False)}
    end = dict.fromkeys(('eos_token', 'pad_token', 'unk_token'), '<|endoftext|>')
    write_json(f'{folder}/tokenizer_config.json',
               {'added_tokens_decoder': added, 'bos_token': '<|startoftext|>', **end, 'model_max_length': 77,
                'tokenizer_class': 'CLIPTokenizer'}, indent=1)


def train_t5(folder, r, vocabulary):
    lines = [' '.join(r.choice(vocabulary + WORDS) for _ in range(10)) for _ in range(3000)]
    lines += [w + e for w in WORDS for e in ('s', 'er')] + ['ha' * n + ' ' + '.' * n for n in range(1, 9)] * 20
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_prefix=f'{scratch}/s', vocab_size=2400, model_type='unigram',
            character_coverage=.9995, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, normalization_rule_name='nmt_nfkc',
            hard_vocab_limit=False, minloglevel=2, num_threads=1)
        shutil.copy(f'{scratch}/s.model', f'{folder}/spiece.model')
    proto = read_proto(folder)
    for piece, score in TIED:
        added = proto.pieces.add()
        added.piece, added.score = piece, score
    with open(f'{folder}/spiece.model', 'wb') as f:
        f.write(proto.SerializeToString())
    extra = [f'<extra_id_{i}>' for i in range(100)]
    decoder = {t.pop('id'): t for t in t5_added(len(read_proto(folder).pieces))}
    write_json(f'{folder}/tokenizer_config.json',
               {'added_tokens_decoder': decoder, 'additional_special_tokens': extra, 'eos_token': '</s>',
                'extra_ids': 100, 'model_max_length': 512, 'pad_token': '<pad>', 'tokenizer_class': 'T5Tokenizer',
                'unk_token': '<unk>'}, indent=1)


def read_proto(folder):
    proto = sentencepiece_model_pb2.ModelProto()
    with open(f'{folder}/spiece.model', 'rb') as f:
        proto.ParseFromString(f.read())
    return proto


def t5_added(pieces):
    """The special tokens of a published T5 folder, with ids; extra_id_99 comes first behind the pieces."""
    named = [dict(special(t, False), id=i) for i, t in enumerate(('<pad>', '</s>', '<unk>'))]
    return named + [dict(special(f'<extra_id_{99 - i}>', False), lstrip=True, rstrip=True, id=pieces + i)
                    for i in range(100)]


def t5_json(proto):
    """tokenizer.json as published T5 folders have it; too large to keep, so it lives while the ids are made."""
    added = t5_added(len(proto.pieces))
    vocabulary = [[p.piece, p.score] for p in proto.pieces] + [[t['content'], 0.0] for t in added[3:]]
    charsmap = base64.b64encode(proto.normalizer_spec.precompiled_charsmap).decode()
    marker = {'type': 'Metaspace', 'replacement': '▁', 'prepend_scheme': 'always', 'split': True}
    a, b = {'Sequence': {'id': 'A', 'type_id': 0}}, {'Sequence': {'id': 'B', 'type_id': 1}}
    end = {'SpecialToken': {'id': '</s>', 'type_id': 0}}
    return {'version': '1.0', 'truncation': None, 'padding': None, 'added_tokens': added, 'decoder': marker,
            'normalizer': {'type': 'Precompiled', 'precompiled_charsmap': charsmap}, 'pre_tokenizer': marker,
            'post_processor': {'type': 'TemplateProcessing', 'single': [a, end], 'pair': [a, b],
                               'special_tokens': {'</s>': {'id': '</s>', 'ids': [1], 'tokens': ['</s>']}}},
            'model': {'type': 'Unigram', 'unk_id': 2, 'vocab': vocabulary, 'byte_fallback': False}}


def write_golden(path, tokenizer, length, rows):
    head = {'length': length, 'pad': tokenizer.pad_token_id, 'transformers': transformers.__version__,
            'tokenizers': tokenizers.__version__}
    with open(path, 'wb') as raw, gzip.GzipFile(fileobj=raw, mode='wb', mtime=0, filename='', compresslevel=9) as f:
        f.write((json.dumps(head) + '\n').encode())
        for text, repeat in rows:
            full = tokenizer(text * repeat)['input_ids']
            cut = tokenizer(text * repeat, padding='max_length', max_length=length, truncation=True)
            ids = [i for i, m in zip(cut['input_ids'], cut['attention_mask']) if m]
            row = [text, ids, int(len(full) > length)] + ([repeat] if repeat > 1 else [])
            f.write((json.dumps(row, ensure_ascii=False, separators=(',', ':')) + '\n').encode())
    print(path, len(rows), 'strings', os.path.getsize(path), 'bytes')


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('checkpoint')
    parser.add_argument('out', nargs='?', default=os.path.dirname(os.path.abspath(__file__)))
    parser.add_argument('--count', type=int, default=10500)
    parser.add_argument('--wide-count', type=int, default=4000)
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--train', action='store_true')
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    out, demo = options.out, options.checkpoint
    trained = random.Random(7)
    vocabulary = made_words(trained, 700)
    clip, t5 = f'{out}/tokens/clip', f'{out}/tokens/t5'
    if options.train or not os.path.exists(clip):
        train_clip(clip, trained, vocabulary)
    if options.train or not os.path.exists(t5):
        train_t5(t5, trained, vocabulary)
    r = random.Random(options.seed)
    rows = fixed() + [(generate(r, vocabulary), 1) for _ in range(options.count)]
    wide = fixed() + [(generate(r, vocabulary), 1) for _ in range(options.wide_count)]
    auto, fast = transformers.AutoTokenizer.from_pretrained, transformers.T5TokenizerFast.from_pretrained
    write_golden(f'{out}/tokens-clip-demo.jsonl.gz', auto(f'{demo}/tokenizer'), 77, rows)
    write_golden(f'{out}/tokens-clip-wide.jsonl.gz', transformers.CLIPTokenizer.from_pretrained(clip), 77, wide)
    write_golden(f'{out}/tokens-t5-demo.jsonl.gz', auto(f'{demo}/tokenizer_2'), 64, rows)
    with tempfile.TemporaryDirectory() as scratch:
        plain, whole = f'{scratch}/plain', f'{scratch}/whole'
        os.makedirs(plain)
        shutil.copy(f'{t5}/spiece.model', plain)
        shutil.copytree(t5, whole)
        write_json(f'{whole}/tokenizer.json', t5_json(read_proto(t5)))
        write_golden(f'{out}/tokens-t5-wide.jsonl.gz', fast(whole), 128, wide)
        write_golden(f'{out}/tokens-t5-plain.jsonl.gz', fast(plain), 64, wide[:1200])


if __name__ == '__main__':
    main()
