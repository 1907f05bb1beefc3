"""Whether an adapter fits a model: what it says of itself against the model's own tensors. Pure."""

from __future__ import annotations

from puna.errors import ModelFileError
from puna.model.gguf import Header, TensorInfo

_DOWN, _UP = ".lora_a", ".lora_b"


def check_fits(adapter: Header, base: Header, what: str) -> None:
    """ModelFileError where it does not: an engine would refuse it too, at the first load. `what`: it, in words."""
    weights = {tensor.name: tensor for tensor in base.tensors}
    pairs: dict[str, dict[str, TensorInfo]] = {}
    for tensor in adapter.tensors:
        for end in (_DOWN, _UP):
            if tensor.name.endswith(end):
                pairs.setdefault(tensor.name.removesuffix(end), {})[end] = tensor
    for name, pair in pairs.items():
        if name not in weights:
            raise ModelFileError(f"{what} changes {name}, which the model has not")
        down, up = pair.get(_DOWN), pair.get(_UP)
        if down is None or up is None:
            raise ModelFileError(f"{what} has one of two matrices for {name}")
        if name == "token_embd.weight":
            continue  # its matrices change places: an engine looks
        shape = weights[name].shape
        if not len(down.shape) == len(up.shape) == len(shape) == 2 or (down.shape[0], up.shape[1]) != shape:
            raise ModelFileError(f"{what} is for another model: its matrices for {name} do not fit {shape}")
        if down.shape[1] != up.shape[0]:
            raise ModelFileError(f"{what}: its two matrices for {name} have different ranks")
