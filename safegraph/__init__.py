"""SafeGraph: neural network graphs as algebra, rewritten by equality saturation."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Where each public name lives; its module is imported when the name is first used, so that
# `import safegraph` and `safegraph --help` load neither SymPy nor the e-graph nor a framework.
_HOMES = {
    "Dim": "safegraph.dims",
    "Op": "safegraph.op",
    "SafeDAG": "safegraph.dag",
    "SafeGraphError": "safegraph.errors",
    "Shape": "safegraph.dims",
    "Size": "safegraph.dims",
    "Value": "safegraph.value",
    "size": "safegraph.dims",
    "tensor": "safegraph.value",
}

__all__ = ["__version__", *_HOMES]

if TYPE_CHECKING:  # the same for type checkers; tests/test_imports.py compares the two
    from safegraph.dag import SafeDAG as SafeDAG
    from safegraph.dims import Dim as Dim
    from safegraph.dims import Shape as Shape
    from safegraph.dims import Size as Size
    from safegraph.dims import size as size
    from safegraph.errors import SafeGraphError as SafeGraphError
    from safegraph.op import Op as Op
    from safegraph.value import Value as Value
    from safegraph.value import tensor as tensor


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'safegraph' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value  # asked once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
