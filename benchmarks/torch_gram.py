"""The same Gram route in torch, as a whole process: what `audit.py` compares with.

    python benchmarks/torch_gram.py adapter_model.safetensors

Gram matrices in float64, equilibrated, Cholesky and singular values batched over the modules of
one rank: no bound, no QR where the condition asks for one, no metrics, no JSON beside one line.
"""

import json
import sys
from collections import defaultdict

import torch
from safetensors import safe_open

Factors = tuple[torch.Tensor, torch.Tensor]


def triangles(grams: torch.Tensor) -> torch.Tensor:
    """Upper F with F^T F = G for a stack of Gram matrices."""
    lengths = grams.diagonal(dim1=1, dim2=2).sqrt()
    lower = torch.linalg.cholesky(grams / lengths[:, :, None] / lengths[:, None, :])
    return lower.mT * lengths[:, None, :]


def main(path: str) -> None:
    grams: dict[int, list[Factors]] = defaultdict(list)
    with safe_open(path, "pt") as file:
        for key in file.keys():  # noqa: SIM118  # safe_open is no mapping
            if "lora_A" not in key:
                continue
            A = file.get_tensor(key).double()
            B = file.get_tensor(key.replace("lora_A", "lora_B")).double()
            grams[A.shape[0]].append((A @ A.T, B.T @ B))
    top = 0.0
    for pairs in grams.values():
        F_A, F_B = (triangles(torch.stack(side)) for side in zip(*pairs, strict=True))
        top = max(top, float(torch.linalg.svdvals(F_B @ F_A.mT).max()))
    print(json.dumps({"largest": top}))


if __name__ == "__main__":
    main(sys.argv[1])
