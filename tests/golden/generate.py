"""Draws the golden cases beside this file with transformers, PEFT and bitsandbytes, on a CPU.

usage: python generate.py [CASE ...]        (no CASE: all of them; each folder's README.md says what it pins)

The shapes are chosen to hurt: widths that are no multiple of NF4's block of 64, so that blocks straddle rows and
the last one is partial; an odd vocabulary; grouped heads; biases everywhere; tied embeddings; shards; f32 and bf16.
Every parameter is random, norms and biases too, so that no path hides behind a zero or a one.
"""

import json
import shutil
import sys
from pathlib import Path

import bitsandbytes
import peft
import torch
import torch.nn.functional as F
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (BertConfig, BertForSequenceClassification, BertModel, BitsAndBytesConfig, DistilBertConfig,
                          DistilBertForSequenceClassification, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM,
                          get_linear_schedule_with_warmup)

HERE = Path(__file__).resolve().parent
VERSIONS = {m.__name__: m.__version__ for m in (torch, transformers, peft, bitsandbytes)}
LLAMA_LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def fill(model, seed, spread):
    """Every parameter from a seeded normal: matrices around 0, norm weights around 1, biases around 0."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=draw)
            if p.dim() == 1:
                p.copy_(noise * 0.1 + (1.0 if "norm" in name else 0.0))
            else:
                p.copy_(noise * (spread * 2 if "embed" in name else spread))
    return model


def fill_adapter(model, seed):
    """A and B both random (PEFT starts B at zero, which would hide half of the gradients)."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            if "lora_" in name:
                p.copy_(torch.randn(p.shape, generator=draw) * 0.15)
            elif "modules_to_save" in name:
                p.add_(torch.randn(p.shape, generator=draw) * 0.15)
    return model


def rows(seed, vocab, lengths, prompts):
    """Right-padded ids, mask and labels: row b has lengths[b] tokens, of which the first prompts[b] are not trained."""
    draw = torch.Generator().manual_seed(seed)
    width = max(lengths)
    ids = torch.zeros(len(lengths), width, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for b, (n, skip) in enumerate(zip(lengths, prompts)):
        ids[b, :n] = torch.randint(3, vocab, (n,), generator=draw)
        labels[b, skip:n] = ids[b, skip:n]
    mask = (torch.arange(width)[None] < torch.tensor(lengths)[:, None]).long()
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def logits(model, batch):
    return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits


def targets(batch):
    return int((batch["labels"][:, 1:] != -100).sum())


def summed_loss(model, batch):
    """Cross-entropy summed over the trained tokens: position t predicts token t + 1."""
    out = logits(model, batch)[:, :-1].float()
    return F.cross_entropy(out.reshape(-1, out.shape[-1]), batch["labels"][:, 1:].reshape(-1), ignore_index=-100, reduction="sum")


def pin_gradients(model, batch, out, prefix):
    model.zero_grad()
    loss = summed_loss(model, batch) / targets(batch)
    loss.backward()
    out[prefix + "lora_loss"] = loss.detach().reshape(1)
    out[prefix + "lora_logits"] = logits(model, batch).detach()
    for name, p in model.named_parameters():
        if p.requires_grad:
            out[f"{prefix}grad|{name.replace('.default', '')}"] = p.grad.clone()
    model.zero_grad()


HYPER = {"max_steps": 10, "batch_size": 2, "grad_accumulation": 2, "loss_normalization": "tokens", "lr": 0.01, "schedule": "linear",
         "warmup_steps": 2, "betas": [0.9, 0.99], "eps": 1e-8, "weight_decay": 0.05, "max_grad_norm": 0.7}


def train(model, batches):
    """AdamW over the adapter; each step divides by all target tokens of its micro-batches."""
    trained = [p for p in model.parameters() if p.requires_grad]
    adamw = torch.optim.AdamW(trained, lr=HYPER["lr"], betas=HYPER["betas"], eps=HYPER["eps"], weight_decay=HYPER["weight_decay"])
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
        log.append({"step": step + 1, "loss": total, "lr": curve.get_last_lr()[0], "grad_norm": norm, "tokens": tokens})
        adamw.step(), curve.step(), adamw.zero_grad()
    return log


def dequantize(state, name):
    """NF4 written out: code x absmax, absmax = map[byte] x nested + offset. bitsandbytes' own AVX-512 path
    mis-indexes absmax where in_features is no multiple of 64, so it is not asked here."""
    info = json.loads(bytes(state[name + ".quant_state.bitsandbytes__nf4"].tolist()))
    packed = state[name].reshape(-1)
    codes = torch.stack([packed >> 4, packed & 15], 1).reshape(-1).long()
    nested = state[name + ".nested_absmax"].repeat_interleave(info["nested_blocksize"])
    byte = state[name + ".absmax"].long()
    absmax = state[name + ".nested_quant_map"][byte] * nested[: len(byte)] + torch.tensor(info["nested_offset"], dtype=torch.float32)
    count = torch.Size(info["shape"]).numel()
    flat = state[name + ".quant_map"][codes[:count]] * absmax.repeat_interleave(info["blocksize"])[:count]
    return flat.reshape(info["shape"])


def save_adapter(model, folder):
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    written = folder / "adapter_config.json"
    options = json.loads(written.read_text())
    # Where the base lay is this machine's business; target_modules is a set and would come out in any order.
    options["base_model_name_or_path"] = "base"
    if isinstance(options["target_modules"], list):
        options["target_modules"].sort()
    written.write_text(json.dumps(options, indent=1) + "\n")


def finish(folder, tensors, record):
    save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()}, folder / "golden.safetensors")
    (folder / "train.json").write_text(json.dumps({**record, "versions": VERSIONS}, indent=1) + "\n")
    for extra in folder.rglob("generation_config.json"):
        extra.unlink()


def llama_ragged(folder):
    config = LlamaConfig(hidden_size=40, intermediate_size=76, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                         vocab_size=101, max_position_embeddings=64, rms_norm_eps=1e-6, rope_theta=500.0, attention_bias=True,
                         mlp_bias=True, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    fill(LlamaForCausalLM(config), 3, 0.12).save_pretrained(folder / "base")
    load = lambda: LlamaForCausalLM.from_pretrained(folder / "base", dtype=torch.float32, attn_implementation="eager")
    quantizer = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                                   bnb_4bit_compute_dtype=torch.float32)
    LlamaForCausalLM.from_pretrained(folder / "base", dtype=torch.float32, device_map="cpu",
                                     quantization_config=quantizer).save_pretrained(folder / "base_nf4")

    def load_nf4():
        model, packed = load(), load_file(folder / "base_nf4" / "model.safetensors")
        weights = model.state_dict()
        for name in [k.removesuffix(".quant_map") for k in packed if k.endswith("weight.quant_map")]:
            weights[name] = dequantize(packed, name)
        model.load_state_dict(weights)
        return model

    probe = rows(4, 101, [13, 9, 1, 12], [3, 0, 0, 11])
    batches = [rows(10 + i, 101, n, p) for i, (n, p) in enumerate([([11, 7], [2, 0]), ([5, 12], [4, 6]), ([9, 9], [1, 3]), ([12, 3], [8, 1])])]
    out = dict(probe)
    for i, batch in enumerate(batches):
        out.update({f"train|{i}|{k}": v for k, v in batch.items()})
    record = {"hyper": HYPER, "runs": {}}
    for run, make, prefix in [("f32", load, ""), ("nf4", load_nf4, "nf4_")]:
        base = make().eval()
        with torch.no_grad():
            out[prefix + "base_logits"] = logits(base, probe)
            if run == "f32":
                out["greedy"] = base.generate(probe["input_ids"][:1, :6], max_new_tokens=24, do_sample=False, eos_token_id=None, pad_token_id=0)
        lora = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", r=3, lora_alpha=5, lora_dropout=0.0, target_modules=LLAMA_LINEARS))
        fill_adapter(lora, 5).train()
        if run == "f32":
            save_adapter(lora, folder / "adapter_init")
        pin_gradients(lora, probe, out, prefix)
        record["runs"][run] = train(lora, batches)
        save_adapter(lora, folder / f"adapter_final_{run}")
    finish(folder, out, record)


def llama_rope(folder):
    shape = dict(hidden_size=45, intermediate_size=60, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=1, head_dim=14,
                 vocab_size=67, max_position_embeddings=20, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2)
    scalings = {
        "llama3": {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                   "original_max_position_embeddings": 8},
        "linear": {"rope_type": "linear", "rope_theta": 300.0, "factor": 2.5},
        "dynamic": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 3.0},
    }
    model = fill(LlamaForCausalLM(LlamaConfig(**shape)), 6, 0.2).to(torch.bfloat16)
    model.save_pretrained(folder / "base")
    weights = {k: v.float() for k, v in model.state_dict().items()}
    # Longer than max_position_embeddings, or the dynamic scaling would never begin.
    batch = rows(7, 67, [26, 23], [0, 0])
    out = {k: batch[k] for k in ("input_ids", "attention_mask")}
    for name, scaling in scalings.items():
        config = LlamaConfig(**shape, rope_parameters=scaling)
        scaled = LlamaForCausalLM(config).float().eval()
        scaled.load_state_dict(weights)
        with torch.no_grad():
            out[f"logits|{name}"] = logits(scaled, batch)
        written = json.loads(config.to_json_string())
        written.update(architectures=["LlamaForCausalLM"], dtype="bfloat16")
        if name == "linear":  # as transformers 4 wrote it
            rope = written.pop("rope_parameters")
            written.update(rope_theta=rope["rope_theta"], rope_scaling={"type": "linear", "factor": rope["factor"]},
                           torch_dtype=written.pop("dtype"))
        (folder / f"config_{name}.json").write_text(json.dumps(written, indent=1) + "\n")
    (folder / "base" / "config.json").unlink()
    finish(folder, out, {"scalings": scalings})


def qwen2_sharded(folder):
    config = Qwen2Config(hidden_size=36, intermediate_size=52, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=3,
                         vocab_size=97, max_position_embeddings=48, rms_norm_eps=1e-6, tie_word_embeddings=False, bos_token_id=1,
                         eos_token_id=2, use_sliding_window=False)
    fill(Qwen2ForCausalLM(config), 8, 0.12).save_pretrained(folder / "base", max_shard_size="70KB")
    load = lambda: Qwen2ForCausalLM.from_pretrained(folder / "base", dtype=torch.float32, attn_implementation="eager").eval()
    batch = rows(9, 97, [10, 8], [0, 0])
    out = {k: batch[k] for k in ("input_ids", "attention_mask")}
    adapters = {
        "rslora": dict(r=4, lora_alpha=8, use_rslora=True, target_modules="all-linear", rank_pattern={"q_proj": 2, "layers.1.mlp.down_proj": 5},
                       alpha_pattern={"v_proj": 24}),
        "some_layers": dict(r=2, lora_alpha=3, target_modules=["q_proj", "down_proj"], layers_to_transform=[0, 2]),
        "regex_and_head": dict(r=2, lora_alpha=4, target_modules=r".*\.layers\.[12]\..*(k_proj|up_proj)", modules_to_save=["lm_head"]),
    }
    with torch.no_grad():
        out["base_logits"] = logits(load(), batch)
        out["greedy"] = load().generate(batch["input_ids"][:1, :7], max_new_tokens=24, do_sample=False, eos_token_id=None, pad_token_id=0)
        for seed, (name, options) in enumerate(adapters.items()):
            lora = get_peft_model(load(), LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **options))
            fill_adapter(lora, 20 + seed).eval()
            out[f"logits|{name}"] = logits(lora, batch)
            save_adapter(lora, folder / f"adapter_{name}")
            again = PeftModel.from_pretrained(load(), folder / f"adapter_{name}").eval()
            assert torch.equal(logits(again, batch), out[f"logits|{name}"]), name
    finish(folder, out, {"adapters": {k: {**v} for k, v in adapters.items()}})


def documents(seed, vocab, classes, lengths, pairs):
    """Right-padded ids, mask and classes. Row b has lengths[b] tokens; those from pairs[b] on are its second text."""
    draw = torch.Generator().manual_seed(seed)
    width = max(lengths)
    ids = torch.zeros(len(lengths), width, dtype=torch.long)
    types = torch.zeros_like(ids)
    for b, (n, second) in enumerate(zip(lengths, pairs)):
        ids[b, :n] = torch.randint(3, vocab, (n,), generator=draw)
        types[b, second:n] = 1
    mask = (torch.arange(width)[None] < torch.tensor(lengths)[:, None]).long()
    labels = torch.randint(0, classes, (len(lengths),), generator=draw)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}, types


def train_classifier(model, batches, steps=10):
    """AdamW over adapter and head, two micro-batches a step, warm-up and linear decay as in HYPER."""
    trained = [p for p in model.parameters() if p.requires_grad]
    adamw = torch.optim.AdamW(trained, lr=HYPER["lr"], betas=HYPER["betas"], eps=HYPER["eps"], weight_decay=HYPER["weight_decay"])
    curve = get_linear_schedule_with_warmup(adamw, HYPER["warmup_steps"], steps)
    log, k = [], HYPER["grad_accumulation"]
    for step in range(steps):
        part = [batches[(step * k + i) % len(batches)] for i in range(k)]
        examples, total = sum(len(b["labels"]) for b in part), 0.0
        for batch in part:
            loss = model(**batch).loss * len(batch["labels"]) / examples
            loss.backward()
            total += loss.item()
        norm = float(torch.nn.utils.clip_grad_norm_(trained, HYPER["max_grad_norm"]))
        log.append({"step": step + 1, "loss": total, "lr": curve.get_last_lr()[0], "grad_norm": norm, "tokens": examples})
        adamw.step(), curve.step(), adamw.zero_grad()
    return log


def classifier(folder, model_class, config, targets, modules_to_save, saved_alone=None):
    """What both encoder cases pin; `saved_alone` is the bare class to save the base of, without its head."""
    model = fill(model_class(config), 30, 0.15)
    if saved_alone is None:
        model.save_pretrained(folder / "base")
    else:
        alone = saved_alone(config)
        alone.load_state_dict(getattr(model, model.base_model_prefix).state_dict())
        alone.save_pretrained(folder / "base")
    head = {k: v.clone() for k, v in model.state_dict().items() if not k.startswith(model.base_model_prefix + ".")}

    def load():
        fresh = model_class.from_pretrained(folder / "base", dtype=torch.float32, attn_implementation="eager", num_labels=config.num_labels)
        fresh.load_state_dict(head, strict=False)
        return fresh

    quantizer = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                                   bnb_4bit_compute_dtype=torch.float32, llm_int8_skip_modules=["pre_classifier", "classifier", "bert.pooler.dense"])
    model.save_pretrained(folder / "whole")
    model_class.from_pretrained(folder / "whole", dtype=torch.float32, device_map="cpu",
                                quantization_config=quantizer).save_pretrained(folder / "base_nf4")
    shutil.rmtree(folder / "whole")

    def load_nf4():
        model, packed = load(), load_file(folder / "base_nf4" / "model.safetensors")
        weights = model.state_dict()
        for name in [k.removesuffix(".quant_map") for k in packed if k.endswith("weight.quant_map")]:
            weights[name] = dequantize(packed, name)
        model.load_state_dict(weights)
        return model

    classes, vocab = config.num_labels, config.vocab_size
    probe, types = documents(31, vocab, classes, [11, 4, 1, 9], [6, 4, 1, 2])
    batches = [documents(40 + i, vocab, classes, n, n)[0] for i, n in enumerate([[7, 5], [3, 9], [8, 8], [1, 6]])]
    out = dict(probe)
    for i, batch in enumerate(batches):
        out.update({f"train|{i}|{k}": v for k, v in batch.items()})
    record = {"hyper": {**HYPER, "max_steps": 10}, "runs": {}}
    for run, make, prefix in [("f32", load, ""), ("nf4", load_nf4, "nf4_")]:
        base = make().eval()
        with torch.no_grad():
            ended = base(**probe, output_hidden_states=True)
            out[prefix + "base_logits"] = ended.logits
            if run == "f32":
                out.update({f"hidden|{i}": h for i, h in enumerate(ended.hidden_states)})
                if config.model_type == "bert":
                    out["token_type_ids"] = types
                    paired = base(**probe, token_type_ids=types, output_hidden_states=True)
                    out["pair_logits"], out["pair_hidden"] = paired.logits, paired.hidden_states[-1]
        lora = get_peft_model(base, LoraConfig(task_type="SEQ_CLS", r=3, lora_alpha=5, lora_dropout=0.0, target_modules=targets,
                                               modules_to_save=modules_to_save))
        fill_adapter(lora, 32).train()
        if run == "f32":
            save_adapter(lora, folder / "adapter_init")
        lora.zero_grad()
        ended = lora(**probe)
        ended.loss.backward()
        out[prefix + "lora_logits"], out[prefix + "lora_loss"] = ended.logits.detach(), ended.loss.detach().reshape(1)
        for name, p in lora.named_parameters():
            if p.requires_grad:
                out[f"{prefix}grad|{name.replace('.default', '').replace('modules_to_save.', '')}"] = p.grad.clone()
        lora.zero_grad()
        record["runs"][run] = train_classifier(lora, batches)
        save_adapter(lora, folder / f"adapter_final_{run}")
    finish(folder, out, record)


def distilbert_tiny(folder):
    config = DistilBertConfig(vocab_size=71, max_position_embeddings=24, n_layers=2, n_heads=3, dim=24, hidden_dim=44, num_labels=3,
                              dropout=0.0, attention_dropout=0.0, seq_classif_dropout=0.0)
    classifier(folder, DistilBertForSequenceClassification, config, ["q_lin", "v_lin"], ["pre_classifier", "classifier"])


def bert_tiny(folder):
    config = BertConfig(vocab_size=67, max_position_embeddings=20, num_hidden_layers=2, num_attention_heads=2, hidden_size=18,
                        intermediate_size=30, num_labels=3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
                        hidden_act="gelu", type_vocab_size=2)
    classifier(folder, BertForSequenceClassification, config, ["query", "key", "value", "dense"], None, saved_alone=BertModel)


if __name__ == "__main__":
    torch.set_num_threads(2)
    cases = {f.__name__: f for f in (llama_ragged, llama_rope, qwen2_sharded, distilbert_tiny, bert_tiny)}
    for case in sys.argv[1:] or cases:
        target = HERE / case
        for old in [p for p in target.glob("*") if p.name != "README.md"]:
            shutil.rmtree(old) if old.is_dir() else old.unlink()
        target.mkdir(exist_ok=True)
        cases[case](target)
        print(case, sum(p.stat().st_size for p in target.rglob("*") if p.is_file()) // 1024, "KiB")
