#!/usr/bin/env python3
"""Trains tests/data/tiny.model, the SentencePiece model of the tests.

It is built as Gemma's is: BPE with byte fallback, pad 0, eos 1, bos 2, unk 3, text taken as it
comes (no normalisation, no blank put in front), the markers of a chat as user-defined pieces. The
result depends on this file and the version of sentencepiece only.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import sentencepiece

ROOT = Path(__file__).resolve().parent.parent

VOCAB_SIZE = 451
MARKERS = [
    "<start_of_turn>",
    "<end_of_turn>",
    "\n",
    "\n\n",
    "\u2581\u2581",
    "\u2581\u2581\u2581\u2581",
]
SENTENCES = """
The ferry leaves the harbour at seven and comes back before the tide turns.
A lantern hung over the door, and under the lantern sat a cat that belonged to nobody.
We counted the boats twice: 12 in the morning, 17 at noon, 305 in the whole summer of 1984.
Nobody in the village could say who had built the bridge, or when, or why it led nowhere.
She wrote the answer on a small card, turned the card over, and wrote a better answer.
If the wind is from the north, bring the nets in; if it is from the south, leave them out.
"What is the capital of the island?" asked the teacher. "It has none," said the smallest girl.
def mean(values): return sum(values) / len(values)  # of an empty list: an error
The old clock in the tower strikes thirteen on Sundays, and the bakers set their ovens by it.
Over the hills the road becomes a path, the path becomes a stream, the stream becomes the sea.
Der Leuchtturm steht am Ende der Mole, und im Winter ist er das einzige Licht an der Küste.
Le café du port ouvre très tôt; on y sert du pain, du miel et des nouvelles de la mer.
El niño contó las gaviotas hasta que se quedó dormido junto a la ventana.
Every letter was answered, every parcel was opened, and every box of tea found its owner.
""".strip().splitlines()


def train() -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES),
        model_writer=model,
        model_type="bpe",
        vocab_size=VOCAB_SIZE,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        split_digits=True,
        user_defined_symbols=MARKERS,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        num_threads=1,
        minloglevel=1,
    )
    return model.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = ROOT / "tests" / "data" / "tiny.model"
    parser.add_argument("--out", type=Path, default=default, help=f"default: {default.name}")
    out = parser.parse_args().out
    out.write_bytes(train())
    print(f"{out}: {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
