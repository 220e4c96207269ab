"""Holds what `trainer` wrote against a golden case; standard library only.

usage: compare.py probe CASE OUT.safetensors --prefix ''|nf4_        relative errors of logits, loss, worst gradient
       compare.py losses CASE RUN_DIR --run f32|nf4                  worst relative error of the losses, step by step

Prints one line of JSON: {"logits": e, "loss": e, "grads": e} or {"losses": e, "steps": n}.
"""

import argparse
import json
import math
from pathlib import Path

import tensors


def distance(got, want):
    """max|got - want| / max|want|; infinite where a number is missing or not finite."""
    if len(got) != len(want) or not all(map(math.isfinite, got)):
        return math.inf
    scale = max(map(abs, want)) or 1.0
    return max(abs(g - w) for g, w in zip(got, want)) / scale


def at_tokens(logits, mask):
    (_, _, vocab), values = logits
    return [v for i, keep in enumerate(mask[1]) if keep for v in values[i * vocab:(i + 1) * vocab]]


def probe(case, out, prefix):
    golden, got = tensors.load(case / "golden.safetensors"), tensors.load(out)
    mask = golden["attention_mask"]
    result = {
        "logits": distance(at_tokens(got["logits"], mask), at_tokens(golden[prefix + "lora_logits"], mask)),
        "loss": distance(got["loss"][1], golden[prefix + "lora_loss"][1]),
    }
    wanted = {k.split("|")[1].replace(".default", ""): v for k, v in golden.items() if k.startswith(prefix + "grad|")}
    result["grads"] = max(distance(got[name][1] if name in got else [], want[1]) for name, want in wanted.items())
    return result


def losses(case, run_dir, run):
    record = json.loads((case / "train.json").read_text())
    want = [row["loss"] for row in (record["runs"][run] if "runs" in record else record[run]["log"])]
    log = map(json.loads, (run_dir / "log.jsonl").read_text().splitlines())
    got = [row["loss"] for row in log if "loss" in row]
    errors = [abs(g - w) / abs(w) for g, w in zip(got, want)]
    return {"losses": max(errors) if len(got) == len(want) else math.inf, "steps": len(got)}


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("what", choices=["probe", "losses"])
    ap.add_argument("case", type=Path)
    ap.add_argument("got", type=Path)
    ap.add_argument("--prefix", default="")
    ap.add_argument("--run", default="nf4")
    a = ap.parse_args()
    result = probe(a.case, a.got, a.prefix) if a.what == "probe" else losses(a.case, a.got, a.run)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
