"""TorchScript (`.pt`): reading (`read`, `table_in`) and writing (`write`, `table_out`)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safegraph.errors import MissingPackageError

if TYPE_CHECKING:
    import torch

    from safegraph.dag import SafeDAG

__all__ = ["from_torchscript", "to_torchscript"]


def from_torchscript(source: str | Path | torch.jit.ScriptModule, inputs: Any = None) -> SafeDAG:
    """The graph of a traced or scripted module, or of a file that `torch.jit.save` wrote.

    `inputs` are example tensors (one, or a sequence), or types as text (`"f32[batch 3 224
    224]"`, or a sequence of them).  Without them the shapes that the trace recorded are
    taken.  A loaded file has none: then every rank is tried for each input, with free sizes
    named after the input and the axis (`x_0`, `x_1`), and what the ops need of these sizes
    is substituted; the ranks whose graph needs the fewest further assumptions are chosen,
    and of those rank 2, then 3, 4, 1, 5, 0.  An input that is an index is i64, others are
    f32.

    In-place ops become ordinary ones: the result of the module is the same, but an input
    that the module writes to is left as it was.  The data of parameters is shared with the
    module, not copied.

    Raises FormatError for a file that is missing, cut short or foreign, or whose input
    shapes cannot be told, and UnsupportedError for control flow that depends on data,
    writes to state or into views, and modules in training mode, with all places.
    """
    _require_torch()
    from safegraph.frontends.torchscript.read import read

    with _without_deprecations():
        return read(source, inputs)


def to_torchscript(dag: SafeDAG, path: str | Path | None = None) -> torch.jit.ScriptModule:
    """The graph as a module with one method `forward`, written to `path` if one is given.

    Inputs come in their order; several outputs come back as a tuple.  Parameters and buffers
    have their names in `state_dict`, with nested modules for dotted names; constants are
    plain attributes. Free sizes are taken from the inputs at run time.  Raises
    UnsupportedError naming all ops that TorchScript cannot express, and OutputError where
    `path` cannot be written (nothing is left there).
    """
    _require_torch()
    from safegraph.frontends.torchscript.write import write

    with _without_deprecations():
        return write(dag, path)


@contextmanager
def _without_deprecations() -> Iterator[None]:
    """Torch marks all of `torch.jit` as deprecated; reading and writing it is our subject."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`?torch.jit", DeprecationWarning)
        yield


def _require_torch() -> None:
    if find_spec("torch") is None:
        raise MissingPackageError("TorchScript needs torch: pip install 'safegraph[torch]'")
