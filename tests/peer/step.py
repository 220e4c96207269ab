"""One LoRA training step at TinyLlama dimensions in PyTorch + PEFT (+ bitsandbytes), random weights.

usage: step.py [--device cuda] [--dtype bf16] [--quantization nf4|none] [--batch 1] [--seq 128] [--steps 5] [--recompute]
Prints one line of JSON with the keys of `trainer bench --what step --json`: tokens_per_s, ms_per_step, peak_gib;
or {"skipped": reason} where a package is missing.
"""

import argparse
import json
import statistics
import time

DTYPES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}


def quantized(model, bnb, torch, dtype):
    """Every linear but the head replaced by bitsandbytes' NF4 with double quantization."""
    for name, linear in list(model.named_modules()):
        if not isinstance(linear, torch.nn.Linear) or "lm_head" in name:
            continue
        packed = bnb.nn.Linear4bit(linear.in_features, linear.out_features, bias=False, quant_type="nf4",
                                   compress_statistics=True, compute_dtype=dtype, device="cpu")
        packed.weight = bnb.nn.Params4bit(linear.weight.data.cpu(), requires_grad=False, quant_type="nf4",
                                          compress_statistics=True, module=packed)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, packed.to(linear.weight.device))
    return model


def measure(a):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    dtype = getattr(torch, DTYPES[a.dtype])
    config = LlamaConfig(hidden_size=2048, intermediate_size=5632, num_hidden_layers=22, num_attention_heads=32, num_key_value_heads=4,
                         vocab_size=32000, max_position_embeddings=2048, attn_implementation="sdpa")
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    with torch.device(a.device):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    if a.quantization == "nf4":
        import bitsandbytes as bnb
        model = quantized(model, bnb, torch, dtype)
    if a.recompute:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    targets = a.targets if a.targets == "all-linear" else a.targets.split(",")
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules=targets)).train()
    adamw = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    ids = torch.randint(3, 32000, (a.batch, a.seq), device=a.device)
    cuda = a.device.startswith("cuda")
    wait = torch.cuda.synchronize if cuda else (lambda: None)
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(a.steps + 2):  # two to warm up
        wait()
        begin = time.perf_counter()
        model(input_ids=ids, labels=ids).loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        adamw.step()
        adamw.zero_grad()
        wait()
        times.append(time.perf_counter() - begin)
    seconds = statistics.median(times[2:])
    peak = torch.cuda.max_memory_allocated() / 2**30 if cuda else None
    return {"tokens_per_s": round(a.batch * a.seq / seconds, 1), "ms_per_step": round(seconds * 1e3, 2),
            "peak_gib": peak and round(peak, 3), "torch": torch.__version__}


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--device", default="cuda")
    ap.add_argument("--dtype", default="bf16", choices=DTYPES)
    ap.add_argument("--quantization", default="nf4", choices=["nf4", "none"])
    ap.add_argument("--targets", default="q_proj,k_proj,v_proj,o_proj", help="as trainer bench has it")
    ap.add_argument("--batch", type=int, default=1)
    ap.add_argument("--seq", type=int, default=128)
    ap.add_argument("--steps", type=int, default=5)
    ap.add_argument("--recompute", action="store_true")
    try:
        print(json.dumps(measure(ap.parse_args())))
    except ImportError as missing:
        print(json.dumps({"skipped": f"{missing.name} is not installed"}))


if __name__ == "__main__":
    main()
