"""The modules that hold a graph's parameters, buffers and constants, under their own names."""

from __future__ import annotations

import json
import keyword
import re
from typing import Any

import torch

from safegraph.dag import SafeDAG, Tensor
from safegraph.frontends.torchscript.types import to_tensor


class _Holder(torch.nn.Module):
    """A module that only has tensors and other such modules."""


def build(dag: SafeDAG) -> tuple[torch.nn.Module, dict[str, str]]:
    """The root module with copies of all tensors, and the source that reaches each of them.

    A dotted name is a path of modules, as in a state dict.
    """
    # torch keeps one compiled type for modules of one class that look equal: the root gets a
    # method, so its class is made for it alone.
    name = dag.name if dag.name.isidentifier() else "Graph"
    root = type(name, (_Holder,), {"__module__": __name__})()
    tensors = dag.kind("parameter", "buffer", "const")
    leaves = {t.name for t in tensors}
    taken: set[str] = set()
    places: dict[str, str] = {}
    for t in tensors:
        path = _path(t.name, leaves, taken)
        taken.add(".".join(path))
        module, place = root, "self"
        for part in path[:-1]:
            if part not in module._modules:
                module.add_module(part, _Holder())
            module, place = module.get_submodule(part), _attribute(place, part)
        _put(module, path[-1], t)
        places[t.name] = _attribute(place, path[-1])
    return root.eval(), places


def _path(name: str, leaves: set[str], taken: set[str]) -> list[str]:
    """Module names and an attribute; one flat name where the dots cannot be modules."""
    parts = name.split(".")
    above = {".".join(parts[:i]) for i in range(1, len(parts))}
    if not all(parts) or above & leaves:
        parts = [re.sub(r"\W", "_", name)]
    free = [
        f"{p}_" if hasattr(torch.nn.Module, p) or p in ("training", "forward") else p for p in parts
    ]
    while ".".join(free) in taken:
        free[-1] += "_"
    return free


def _attribute(place: str, part: str) -> str:
    """By getattr where the part is no name in Python, as are the modules of a Sequential."""
    plain = re.fullmatch(r"[A-Za-z]\w*|_[A-Za-z]\w*", part) and not keyword.iskeyword(part)
    return f"{place}.{part}" if plain else f"getattr({place}, {json.dumps(part)})"


def _put(module: torch.nn.Module, name: str, t: Tensor) -> None:
    data: Any = to_tensor(t.array(), t.type.dtype)
    if t.kind == "parameter":
        learnable = data.is_floating_point() or data.is_complex()
        module.register_parameter(name, torch.nn.Parameter(data, requires_grad=learnable))
    elif t.kind == "buffer":
        module.register_buffer(name, data)
    else:
        setattr(module, name, data)  # a plain attribute: not in the state dict
