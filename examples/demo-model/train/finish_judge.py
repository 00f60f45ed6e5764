"""Make the judge's pipeline folder from what train_judge.py wrote.

usage: finish_judge.py OUT CHECKPOINT TOKENIZERS FOLDER

OUT has the weights, CHECKPOINT is the folder that training started from (its autoencoder is copied), TOKENIZERS has
tokenizer/ and tokenizer_2/. File and weight names become those of the published folder.
"""
import os
import shutil
import sys

import finish_checkpoint
import model
import train_judge


def main(out, checkpoint, tokenizers, folder):
    os.makedirs(folder, exist_ok=True)
    for source, part in ((checkpoint, 'vae'), (tokenizers, 'tokenizer'), (tokenizers, 'tokenizer_2')):
        shutil.copytree(f'{source}/{part}', f'{folder}/{part}', dirs_exist_ok=True)
    editor = model.Editor.from_tokens(model.Tokens(folder))
    train_judge.load_parts(editor, out)
    model.save_editor(editor, folder)
    model.save_pipeline_files(folder)
    finish_checkpoint.main(folder)
    total = sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(folder) for name in names)
    print(f'{total / 1e6:.1f} MB')


if __name__ == '__main__':
    main(*sys.argv[1:])
