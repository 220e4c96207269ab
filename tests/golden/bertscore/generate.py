"""Draws `case.json`: texts with the vectors of a small random encoder, and what bert-score makes of them.

usage: python generate.py        (needs bert-score 0.3.13 and torch; seed 7)

The encoder is an embedding table whose rows are mixed with the text's mean, so that a token's vector depends on its text.
Every score is bert-score's own `bert_cos_score_idf`, one pair at a time, so that no padding takes part.
"""
import json
import os
from collections import defaultdict

import numpy as np
import torch
from bert_score import utils

SEED, WIDTH, CLS, SEP = 7, 6, 1, 2
PAIRS = [
    ("the cat sat", "the cat sat"),
    ("the cat sat on the mat", "a dog lay on the rug"),
    ("the the the", "the cat"),
    ("", "the cat"),
    ("the cat", ""),
    ("", ""),
    ("mat", "rug"),
    ("Größe 测试", "größe 测试 😀"),
    ("a b c d e f g", "g f e d c b a"),
    (" the cat ", "the cat"),
]
VOCABULARY = {w: i + 3 for i, w in enumerate(sorted({w for pair in PAIRS for t in pair for w in t.split()}))}


class Tokenizer:
    pad_token_id = 0


class Encoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(len(VOCABULARY) + 3, WIDTH)

    def forward(self, ids, attention_mask=None, output_hidden_states=False):
        x = self.table(ids)
        mask = attention_mask.unsqueeze(-1).float()
        return (x + 0.5 * (x * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True),)


def encode(_, text):
    return [CLS] + [VOCABULARY[w] for w in text.split()] + [SEP]


def main():
    torch.manual_seed(SEED)
    utils.sent_encode = encode
    tokenizer, model = Tokenizer(), Encoder().eval()
    hyps, refs = [h for h, _ in PAIRS], [r for _, r in PAIRS]
    texts = {}
    for text in hyps + refs:
        ids = encode(tokenizer, text)
        with torch.no_grad():
            vectors = model(torch.tensor([ids]), torch.ones(1, len(ids)))[0][0]
        texts[text] = {"ids": ids, "vectors": [float(np.float32(v)) for v in vectors.flatten()]}
    plain = defaultdict(lambda: 1.0, {CLS: 0, SEP: 0})
    case = {"predictions": hyps, "references": refs, "special": [CLS, SEP], "texts": texts}
    for key, weights in (("noidf", plain), ("idf", utils.get_idf_dict(refs, tokenizer, nthreads=0))):
        found = utils.bert_cos_score_idf(model, refs, hyps, tokenizer, weights, batch_size=1, device="cpu")
        case[key] = [[None if np.isnan(v) else float(v) for v in row] for row in found.numpy()]
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "case.json")
    with open(path, "w") as file:
        json.dump(case, file, ensure_ascii=False, indent=None, separators=(",", ":"))
        file.write("\n")


if __name__ == "__main__":
    main()
