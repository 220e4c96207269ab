"""Turns a golden case into the files `trainer` reads: ids.json, labels.json (probe) and train.jsonl, train.toml keys.

usage: prepare.py CASE_DIR        writes beside the case's own files; standard library only
"""

import json
import sys
from pathlib import Path

import tensors


def unpadded(golden, prefix=""):
    ids, labels, mask = (tensors.rows(golden[prefix + k]) for k in ("input_ids", "labels", "attention_mask"))
    return [(i[:sum(m)], l[:sum(m)]) for i, l, m in zip(ids, labels, mask)]


def main(case):
    golden = tensors.load(case / "golden.safetensors")
    width = golden["input_ids"][0][1]
    ids = [row + [-1] * (width - len(row)) for row, _ in unpadded(golden)]
    (case / "ids.json").write_text(json.dumps(ids))
    (case / "labels.json").write_text(json.dumps(tensors.rows(golden["labels"])))
    with open(case / "train.jsonl", "w") as file:
        i = 0
        while f"train|{i}|input_ids" in golden:
            for row, labels in unpadded(golden, f"train|{i}|"):
                file.write(json.dumps({"input_ids": row, "labels": labels}) + "\n")
            i += 1
    record = json.loads((case / "train.json").read_text())
    h = record["hyper"] if "runs" in record else record["f32"]["hyper"]
    pick = lambda *keys: next(h[k] for k in keys if k in h)
    train = {
        "max_steps": pick("max_steps", "steps"), "batch_size": 2, "grad_accumulation": pick("grad_accumulation", "accum"),
        "loss_normalization": h.get("loss_normalization", "micro_batch"), "lr": h["lr"],
        "schedule": h["schedule"].replace(",", " ").split()[0], "warmup_steps": h["warmup_steps"],
        "weight_decay": h["weight_decay"], "betas": h["betas"], "eps": h["eps"], "max_grad_norm": pick("max_grad_norm", "clip"),
    }
    (case / "train.toml").write_text("".join(f"{k} = {json.dumps(v)}\n" for k, v in train.items()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
