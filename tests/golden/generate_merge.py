"""Draws merge_small: what PEFT's add_weighted_adapter makes of small random adapters.

usage: python generate_merge.py            (needs torch, peft and safetensors; merge_small/README.md says what it pins)

The adapters sit on bare linears of odd, oblong sizes. DARE's masks are recorded where PEFT draws them, so that another
implementation can be given the same ones.
"""

import json
import math
import shutil
from pathlib import Path

import peft
import peft.utils.merge_utils as merge_utils
import torch
from peft import LoraConfig
from peft.tuners.lora import LoraModel
from safetensors.torch import save_file

OUT = Path(__file__).resolve().parent / "merge_small"
SIZES = {"q_proj": (14, 11), "v_proj": (5, 11), "up_proj": (9, 11)}  # (out, in)
ADAPTERS = {
    "a": dict(r=3, lora_alpha=6, target_modules=["q_proj", "v_proj"]),
    "b": dict(r=3, lora_alpha=2, target_modules=["q_proj", "up_proj"], use_rslora=True),
    "c": dict(r=2, lora_alpha=5, target_modules=["q_proj", "v_proj"]),
}
PAIR, UNEQUAL = ["a", "b"], ["a", "c", "b"]
CASES = [(t, PAIR, [0.7, -0.9], {}) for t in ("linear", "cat", "svd")]
CASES += [
    (t, PAIR, [1.0, 0.6], dict(density=d, majority_sign_method=s))
    for t, d, s in (
        ("ties", 0.6, "total"), ("ties", 0.3, "frequency"), ("ties_svd", 0.5, "frequency"), ("ties_svd", 0.7, "total"),
        ("dare_ties", 0.6, "total"), ("dare_ties", 0.4, "frequency"), ("dare_ties_svd", 0.5, "total"),
    )
]
CASES += [
    (t, PAIR, [-0.5, 1.2], dict(density=0.6))
    for t in ("dare_linear", "dare_linear_svd", "magnitude_prune", "magnitude_prune_svd")
]
CASES += [
    ("cat", UNEQUAL, [1.0, -0.5, 0.25], {}),
    ("svd", UNEQUAL, [1.0, -0.5, 0.25], dict(svd_rank=4)),
    ("ties_svd", UNEQUAL, [1.0, 0.5, 0.25], dict(density=0.4, majority_sign_method="total")),
    ("svd", UNEQUAL, [1.0, 0.5, 0.25], dict(svd_rank=2, svd_clamp=0.95)),
    ("linear", ["b", "a"], [0.5, 0.5], {}),
    ("ties", ["c"], [-0.75], dict(density=0.5)),
]


class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        for name, (out, inputs) in SIZES.items():
            setattr(self, name, torch.nn.Linear(inputs, out, bias=False))


class Base(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList([Layer()])


def adapted(base):
    draw = torch.Generator().manual_seed(11)
    model = None
    for name, settings in ADAPTERS.items():
        config = LoraConfig(lora_dropout=0.0, **settings)
        if model is None:
            model = LoraModel(base, {name: config}, name)
        else:
            model.peft_config[name] = config
            model.inject_adapter(base, name)
    for key, p in sorted(base.named_parameters()):
        if "lora_" in key:
            p.data = torch.randn(p.shape, generator=draw) * 0.4
    return model


def config_json(config):
    kept = dict(peft_type="LORA", r=config.r, lora_alpha=config.lora_alpha, use_rslora=config.use_rslora)
    return kept | dict(base_model_name_or_path="bare", target_modules=sorted(config.target_modules))


def pairs(base, adapter):
    return {n: m for n, m in base.named_modules() if hasattr(m, "lora_A") and adapter in m.lora_A}


def main():
    shutil.rmtree(OUT / "adapters", ignore_errors=True)
    base = Base()
    model = adapted(base)
    for name in ADAPTERS:
        folder = OUT / "adapters" / name
        folder.mkdir(parents=True)
        tensors = {}
        for path, module in pairs(base, name).items():
            for half in ("lora_A", "lora_B"):
                tensors[f"base_model.model.{path}.{half}.weight"] = getattr(module, half)[name].weight.data.clone()
        save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
        (folder / "adapter_config.json").write_text(json.dumps(config_json(model.peft_config[name])))

    drawn = []

    def recorded(tensor, density, rescale):
        mask = torch.bernoulli(torch.full_like(tensor, density))
        drawn.append(mask.to(torch.uint8))
        return tensor * mask / density if rescale else tensor * mask

    merge_utils.random_pruning = recorded
    tensors, masks, index = {}, {}, []
    for number, (method, names, weights, settings) in enumerate(CASES):
        case = f"{number:02d}_{method}"
        drawn.clear()
        torch.manual_seed(number)
        model.add_weighted_adapter(names, weights, case, combination_type=method, **settings)
        order = []
        for path, module in pairs(base, case).items():
            a, b = module.lora_A[case].weight.data, module.lora_B[case].weight.data
            parts = {"A": a, "B": b, "delta": module.scaling[case] * (b @ a)}
            tensors |= {f"{case}|{path}|{part}": t.clone().contiguous() for part, t in parts.items()}
            halves = ["delta"] if method.endswith("svd") else ["A", "B"]
            if method.startswith("dare"):
                order += [[path, n, half] for half in halves for n in names if n in module.lora_A]
        assert len(order) == len(drawn)
        masks |= {f"{case}|{i}": mask.contiguous() for i, mask in enumerate(drawn)}
        config = model.peft_config[case]
        scaling = config.lora_alpha / (math.sqrt(config.r) if config.use_rslora else config.r)
        index.append(dict(name=case, combination_type=method, adapters=names, weights=weights, args=settings, scaling=scaling,
                          modules=list(pairs(base, case)), mask_order=order, config=config_json(config)))
        model.delete_adapter(case)
    save_file(tensors, OUT / "merged.safetensors")
    save_file(masks, OUT / "masks.safetensors")
    versions = {m.__name__: m.__version__ for m in (torch, peft)}
    (OUT / "index.json").write_text(json.dumps(dict(versions=versions, cases=index)))


if __name__ == "__main__":
    main()
