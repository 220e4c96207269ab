"""Draws the golden case of the adapter methods beside this file, with transformers and PEFT, on a CPU.

usage: python generate_methods.py [FOLDER] [SEED]       (FOLDER: methods/; another seed draws other adapters)

The base, its 4-bit form, the probe and the training batches are those of llama_ragged/, whose widths are no multiple of NF4's block.
Every run takes twenty AdamW steps. PEFT trains on the weights that the codes stand for, dequantized by the formula in generate.py.
"""

import json
import sys
from pathlib import Path

import torch
from peft import HiraConfig, LoraConfig, PeftModel, get_peft_model
from peft.optimizers import create_loraplus_optimizer
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM, get_linear_schedule_with_warmup

from generate import HERE, VERSIONS, dequantize, logits, save_adapter, summed_loss, targets

BASE = HERE / "llama_ragged"
TARGETS = ["q_proj", "v_proj", "down_proj"]
HYPER = {"max_steps": 20, "batch_size": 2, "grad_accumulation": 2, "loss_normalization": "tokens", "lr": 0.01, "schedule": "linear",
         "warmup_steps": 2, "betas": [0.9, 0.99], "eps": 1e-8, "weight_decay": 0.05, "max_grad_norm": 0.7}
LORA_PLUS_RATIO = 4.0
# Every eighth logit is enough to tell models apart, and keeps the file small.
STRIDE = 8


def load(nf4):
    model = LlamaForCausalLM.from_pretrained(BASE / "base", dtype=torch.float32, attn_implementation="eager")
    if nf4:
        packed = load_file(BASE / "base_nf4" / "model.safetensors")
        weights = model.state_dict()
        for name in [k.removesuffix(".quant_map") for k in packed if k.endswith("weight.quant_map")]:
            weights[name] = dequantize(packed, name)
        model.load_state_dict(weights)
    return model


def fill_adapter(model, seed):
    """A and B random, magnitudes moved off the norms they start at."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            if "lora_magnitude_vector" in name:
                p.mul_(1.0 + 0.2 * torch.randn(p.shape, generator=draw))
            elif "lora_" in name or "hira_" in name:
                p.copy_(torch.randn(p.shape, generator=draw) * (0.5 if "hira_" in name else 0.15))
    return model


def optimizer(model, ratio):
    options = {"lr": HYPER["lr"], "betas": HYPER["betas"], "eps": HYPER["eps"]}
    if ratio:
        return create_loraplus_optimizer(model, torch.optim.AdamW, loraplus_lr_ratio=ratio, loraplus_weight_decay=HYPER["weight_decay"], **options)
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(trained, weight_decay=HYPER["weight_decay"], **options)


def train(model, batches, ratio=None):
    adamw = optimizer(model, ratio)
    trained = [p for p in model.parameters() if p.requires_grad]
    curve = get_linear_schedule_with_warmup(adamw, HYPER["warmup_steps"], HYPER["max_steps"])
    log, k = [], HYPER["grad_accumulation"]
    for step in range(HYPER["max_steps"]):
        part = [batches[(step * k + i) % len(batches)] for i in range(k)]
        tokens, total = sum(map(targets, part)), 0.0
        for batch in part:
            loss = summed_loss(model, batch) / tokens
            loss.backward()
            total += loss.item()
        norm = float(torch.nn.utils.clip_grad_norm_(trained, HYPER["max_grad_norm"]))
        log.append({"step": step + 1, "loss": total, "lr": adamw.param_groups[0]["lr"], "grad_norm": norm, "tokens": tokens})
        adamw.step(), curve.step(), adamw.zero_grad()
    return log


def saved_name(name):
    return name.replace(".default", "").removesuffix(".weight") if "magnitude" in name else name.replace(".default", "")


def pin(model, probe, out, prefix):
    model.zero_grad()
    loss = summed_loss(model, probe) / targets(probe)
    loss.backward()
    out[prefix + "|loss"] = loss.detach().reshape(1)
    out[prefix + "|logits"] = logits(model, probe).detach()[:, :, ::STRIDE]
    for name, p in model.named_parameters():
        if p.requires_grad:
            out[f"{prefix}|grad|{saved_name(name)}"] = p.grad.clone()
    model.zero_grad()


def main(folder, seed):
    folder.mkdir(exist_ok=True)
    golden = load_file(BASE / "golden.safetensors")
    probe = {k: golden[k] for k in ("input_ids", "attention_mask", "labels")}
    batches = [{k: golden[f"train|{i}|{k}"] for k in probe} for i in range(4)]
    shared = dict(task_type="CAUSAL_LM", r=3, target_modules=TARGETS)
    adapters = {
        "dora": LoraConfig(lora_alpha=5, use_dora=True, **shared),
        "hira": HiraConfig(**shared),
        "lora": LoraConfig(lora_alpha=5, **shared),
    }
    out, runs = {}, {}
    for offset, (name, config) in enumerate(adapters.items()):
        for nf4 in (False, True):
            prefix = name + ("_nf4" if nf4 else "")
            if nf4:
                model = PeftModel.from_pretrained(load(True), folder / f"adapter_{name}", is_trainable=True).train()
            else:
                model = fill_adapter(get_peft_model(load(False), config), seed + offset).train()
                save_adapter(model, folder / f"adapter_{name}")
            if name in ("dora", "hira"):
                pin(model, probe, out, prefix)
                runs[prefix] = train(model, batches)
                out[prefix + "|trained"] = logits(model, probe).detach()[:, :, ::STRIDE]
            if name == "dora" and not nf4:
                model = PeftModel.from_pretrained(load(False), folder / "adapter_dora", is_trainable=True).train()
                runs["dora_plus"] = train(model, batches, LORA_PLUS_RATIO)
    stable = LoraConfig(lora_alpha=5, use_dora=True, use_rslora=True, **shared)
    with torch.no_grad():
        model = PeftModel.from_pretrained(load(False), folder / "adapter_dora", config=stable).eval()
        out["dora_rslora|logits"] = logits(model, probe)[:, :, ::STRIDE]
    plain = PeftModel.from_pretrained(load(False), folder / "adapter_lora", is_trainable=True).train()
    runs["lora_plus"] = train(plain, batches, LORA_PLUS_RATIO)
    pissa = get_peft_model(load(False), LoraConfig(lora_alpha=5, init_lora_weights="pissa", **shared)).train()
    runs["pissa"] = train(pissa, batches)
    out["pissa|trained"] = logits(pissa, probe).detach()[:, :, ::STRIDE]
    save_file({k: v.contiguous().clone() for k, v in out.items()}, folder / "golden.safetensors")
    for log in runs.values():
        for row in log:
            row.pop("step"), row.pop("tokens")
            row.update({k: float(f"{v:.9g}") for k, v in row.items()})
    record = {"hyper": {**HYPER, "lora_plus_ratio": LORA_PLUS_RATIO}, "stride": STRIDE, "runs": runs, "versions": VERSIONS}
    (folder / "train.json").write_text(json.dumps(record) + "\n")
    print(folder.name, sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) // 1024, "KiB")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "methods", int(sys.argv[2]) if len(sys.argv) > 2 else 40)
