"""Trains a small adapter by every method with `trainer`, loads each in PEFT, and compares logits, loss and gradients.

usage: python adapters.py TRAINER BASE OUT [--quantization none|nf4] [--only dora,hira] [--targets q_proj,v_proj,down_proj]
       (needs torch, transformers and peft; OMP_NUM_THREADS=1 on a small machine; OUT must not hold earlier runs)

BASE is the folder of a Llama with a tokenizer, or of a BERT encoder (a classifier of two classes is then trained; give
`--targets query,value`). PEFT computes in f64 on a dense copy of the base that the adapter belongs to: with nf4, on the values its codes
stand for. Prints a JSON object per method with the largest differences relative to the largest value (of a gradient: of its
tensor, or a hundredth of the largest of all); exits 1 where one is above --limit.
"""

import argparse
import json
import random
import subprocess
import sys
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

METHODS = {
    "lora": [], "rslora": ["lora.method=rslora"], "dora": ["lora.method=dora"], "hira": ["lora.method=hira"],
    "sparse": ["lora.method=sparse", "lora.density=0.5"], "head": ["lora.method=head"], "gaussian": ["lora.init=gaussian"],
    "pissa": ["lora.init=pissa"], "loftq": ["lora.init=loftq"], "loftq5": ["lora.init=loftq", "lora.loftq_iter=5"],
}
NF4_ONLY = ("loftq", "loftq5")
LENGTHS = (24, 17, 9)


def trainer(a, *args):
    ended = subprocess.run([a.trainer, *map(str, args), "--device", "cpu"], capture_output=True, text=True)
    if ended.returncode:
        sys.exit(f"trainer {' '.join(map(str, args))}\n{ended.stderr}")


def dense(a, base, name):
    """A dense f32 folder with the values that `base` computes with."""
    if a.quantization == "none":
        return base
    packed = "quantization_config" in json.loads((base / "config.json").read_text())
    out = a.out / f"dense_{name}"
    if not out.exists():
        if not packed:
            trainer(a, "quantize", "--base", base, "--out", a.out / f"nf4_{name}")
            base = a.out / f"nf4_{name}"
        trainer(a, "dequantize", "--base", base, "--out", out)
    return out


def write_data(a, vocabulary, causal):
    """Rows to train on, and a ragged probe with its labels."""
    draw = random.Random(7)
    rows = []
    for i in range(24):
        ids = [draw.randrange(3, vocabulary) for _ in range(draw.randrange(5, 20))]
        words = " ".join(draw.choice("good great fine bad poor dull film story the a".split()) for _ in range(8))
        rows.append({"input_ids": ids, "labels": ids} if causal else {"text": words, "label": ["no", "yes"][i % 2]})
    (a.out / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ids = [[draw.randrange(3, vocabulary) for _ in range(n)] for n in LENGTHS]
    padded = [row + [-1] * (LENGTHS[0] - len(row)) for row in ids]
    labels = [[i if i >= 0 else -100 for i in row] for row in padded] if causal else [1, 0, 1]
    (a.out / "ids.json").write_text(json.dumps(padded))
    (a.out / "labels.json").write_text(json.dumps(labels))
    ids = torch.tensor(padded)
    return {"input_ids": ids.clamp_min(0), "attention_mask": (ids >= 0).long(), "labels": torch.tensor(labels)}


def train(a, name, causal):
    config = f"""[model]\nbase = {json.dumps(str(a.base))}\nquantization = "{a.quantization}"\ncompute = "f32"\n
[lora]\nrank = 4\nalpha = 10\ntarget_modules = {json.dumps(a.targets.split(","))}\n
[data]\ntrain = {json.dumps(str(a.out / "train.jsonl"))}\nformat = "{'tokens' if causal else 'classification'}"\nmax_length = 64\n
[train]\nmax_steps = 12\nbatch_size = 4\nlr = 0.01\n
[output]\ndir = {json.dumps(str(a.out / name))}\nformats = []\n"""
    path = a.out / f"{name}.toml"
    path.write_text(config)
    trainer(a, "train", path, *(part for s in METHODS[name] for part in ("--set", s)))
    return a.out / name


def distance(got, want, least=0.0):
    """The largest difference, relative to the largest value or `least`."""
    got = got.double()
    if got.shape != want.shape or not torch.isfinite(got).all():
        return float("inf")
    scale = max(want.abs().max().item(), least) or 1.0
    return (got - want).abs().max().item() / scale


def saved_name(name):
    """A parameter's name in PEFT's file."""
    name = name.replace(".modules_to_save.default", "").replace(".default", "")
    return name.removesuffix(".weight") if "magnitude" in name else name


def gradients(model, probe):
    model.zero_grad()
    result = model(**probe)
    result.loss.backward()
    trained = ((n, p) for n, p in model.named_parameters() if p.requires_grad and p.grad is not None)
    return result, {saved_name(n): p.grad.clone() for n, p in trained}


def compare(a, name, probe, causal):
    run = train(a, name, causal)
    own = run / "base"  # what an initialization left of the base
    base, label = (own, name) if own.is_dir() else (a.base, "base")
    out = run / "probe.safetensors"
    trainer(a, "probe", "--base", base, "--adapter", run / "adapter", "--quantization", a.quantization, "--compute", "f32",
            "--ids", a.out / "ids.json", "--labels", a.out / "labels.json", "--grads", "--out", out)
    got = load_file(out)

    folder = dense(a, base, label)
    torch.manual_seed(0)  # of the head that an encoder saved alone lacks
    kind = AutoModelForCausalLM if causal else AutoModelForSequenceClassification
    model = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    # eval: gradients without dropout, as the probe takes them
    model = PeftModel.from_pretrained(model, run / "adapter", is_trainable=True).eval()
    _, rounded = gradients(model, probe)
    result, wanted = gradients(model.double(), probe)
    # Sums of hundredths of the largest gradient and less are rounded like their terms.
    least = 0.01 * max(g.abs().max().item() for g in wanted.values())
    real = probe["attention_mask"].bool()
    pick = (lambda logits: logits[real]) if causal else (lambda logits: logits)
    missing = sorted(set(wanted) - set(got))
    if missing:
        sys.exit(f"{name}: the probe has no gradient of {missing}; it has {sorted(got)}")
    with torch.no_grad(), model.disable_adapter():
        bare = model(**probe).logits
    return {
        "method": name, "quantization": a.quantization,
        "logits": distance(pick(got["logits"]), pick(result.logits.detach())),
        "loss": distance(got["loss"], result.loss.detach().reshape(1)),
        "grads": max(distance(got[n], g, least) for n, g in wanted.items()), "tensors": len(wanted),
        "grads_of_peft_in_f32": max(distance(rounded[n], g, least) for n, g in wanted.items()),
        "adapter_moves_logits_by": distance(pick(bare), pick(result.logits.detach())),
    }


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("trainer")
    ap.add_argument("base", type=Path)
    ap.add_argument("out", type=Path)
    ap.add_argument("--quantization", choices=["none", "nf4"], default="none")
    ap.add_argument("--targets", default="q_proj,v_proj,down_proj")
    ap.add_argument("--only", default=",".join(METHODS))
    ap.add_argument("--limit", type=float, default=1e-5, help="of logits and loss; gradients may be twice as far")
    a = ap.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    config = json.loads((a.base / "config.json").read_text())
    causal = config["model_type"] == "llama"
    if "quantization_config" in config:  # LoftQ wants the weights themselves
        trainer(a, "dequantize", "--base", a.base, "--out", a.out / "original")
        a.base = a.out / "original"
    probe = write_data(a, config["vocab_size"], causal)
    far = []
    for name in a.only.split(","):
        if a.quantization == "none" and name in NF4_ONLY:
            continue
        found = compare(a, name, probe, causal)
        print(json.dumps({k: float(f"{v:.2e}") if isinstance(v, float) else v for k, v in found.items()}), flush=True)
        near = found["logits"] <= a.limit and found["loss"] <= a.limit and found["grads"] <= 2 * a.limit
        far += [] if near else [name]
    sys.exit(f"above the limit: {', '.join(far)}" if far else 0)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
