"""Operations that no table knows: carried along, with the shapes that torch gives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from safegraph.dims import Size
from safegraph.errors import FormatError, UnsupportedError
from safegraph.frontends.torchscript.types import torch_dtype, type_of
from safegraph.op import TensorType
from safegraph.ops import Opaque
from safegraph.value import Value, apply

FORMAT = "torchscript"


_FUSED = ", or trace with torch.backends.mha.set_fastpath_enabled(False): a mask is then plain ops"
_ADVICE = {
    "aten::_transformer_encoder_layer_fwd": _FUSED,
    "aten::_native_multi_head_attention": _FUSED,
}


def carry(kind: str, schema: Any, arguments: Sequence[Any]) -> Any:
    """The result (or the list of results) of an unknown operation.

    Its attributes are the overload and all arguments by name; an operand is ("operand", number).
    """
    packet = _packet(kind)
    function = getattr(packet, schema.overload_name or "default")
    if torch.Tag.nondeterministic_seeded in function.tags:
        raise UnsupportedError("it draws random numbers, so it is no function of the inputs")
    operands: list[Value] = []
    attributes = tuple(
        (argument.name, _plain(value, operands))
        for argument, value in zip(schema.arguments, arguments, strict=True)
    )
    free = sorted({n for v in operands for d in v.shape if isinstance(d, Size) for n in d.names})
    if free:
        raise FormatError(
            f"no table knows {kind}: its shape cannot be told for free sizes ({', '.join(free)}): "
            f"give static shapes in inputs={_ADVICE.get(kind, '')}"
        )
    found = _run(function, schema, attributes, operands)
    spec = (("overload", schema.overload_name), *attributes)

    def result(i: int, type: TensorType) -> Value:
        return apply(Opaque(FORMAT, kind, spec, i, type), *operands)

    if isinstance(found, TensorType):
        return result(0, found)
    return [result(i, t) if t is not None else None for i, t in enumerate(found)]


def _packet(kind: str) -> Any:
    space, _, name = kind.partition("::")
    try:
        return getattr(getattr(torch.ops, space), name)
    except AttributeError as error:
        raise UnsupportedError(
            f"torch has no operation {kind} here: import the package that registers it"
        ) from error


def _plain(value: Any, operands: list[Value]) -> Any:
    """An argument as immutable data; operands are noted."""
    match value:
        case Value():
            operands.append(value)
            return ("operand", len(operands) - 1)
        case list() | tuple():
            return ("list", *(_plain(v, operands) for v in value))
        case torch.device():
            return str(value)
        case None | bool() | int() | float() | str() | Size():
            return value
    raise UnsupportedError(f"its argument is a {type(value).__name__}, which cannot be carried")


def unplain(value: Any, operands: Sequence[Any]) -> Any:
    """An argument from its data, with something in the place of each operand."""
    match value:
        case ("operand", int(i)):
            return operands[i]
        case ("list", *items):
            return [unplain(i, operands) for i in items]
    return value


def _run(function: Any, schema: Any, attributes: Any, operands: Sequence[Value]) -> Any:
    """The types of the results, from torch's own shape functions (no data is computed)."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=False) as mode, torch.no_grad():
        with mode:
            fakes = [
                torch.empty(v.shape, dtype=torch_dtype(v.dtype))  # type: ignore[arg-type]
                for v in operands
            ]
        given = {name: unplain(value, fakes) for name, value in attributes}
        names = [a.name for a in schema.arguments]
        only = {a.name for a in schema.arguments if a.kwarg_only}
        try:
            found = function(
                *(given[n] for n in names if n not in only), **{n: given[n] for n in only}
            )
        except Exception as error:  # torch raises its own kinds, many of them private
            reason = (
                str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            )
            raise UnsupportedError(
                f"torch does not tell the shape of its result: {reason}"
            ) from error
        if isinstance(found, torch.Tensor):
            return type_of(found)
        return [type_of(t) if isinstance(t, torch.Tensor) else None for t in found]
