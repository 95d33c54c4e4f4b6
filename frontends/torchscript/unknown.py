"""Operations that no table knows: carried along, with the shapes that torch gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    function, attributes, operands = _stated(kind, schema, arguments)
    if _draws(function, dict(attributes)):
        raise UnsupportedError("it draws random numbers, so it is no function of the inputs")
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


def constant(kind: str, schema: Any, arguments: Sequence[Any]) -> torch.Tensor | None:
    """What an operation on numbers alone makes, if it is the same each time: torch.hann_window."""
    function, attributes, operands = _stated(kind, schema, arguments)
    made_anew = _draws(function, dict(attributes)) or kind.startswith("aten::empty")
    if operands or made_anew or any(isinstance(value, Size) for value in _flat(attributes)):
        return None
    found = _called(function, schema, dict(attributes), ())
    return found if isinstance(found, torch.Tensor) else None


def _stated(
    kind: str, schema: Any, arguments: Sequence[Any]
) -> tuple[Any, tuple[tuple[str, Any], ...], list[Value]]:
    """The function of torch, its arguments by name with operands by number, and the operands."""
    function = getattr(_packet(kind), schema.overload_name or "default")
    operands: list[Value] = []
    attributes = tuple(
        (argument.name, _plain(value, operands))
        for argument, value in zip(schema.arguments, arguments, strict=True)
    )
    return function, attributes, operands


def _draws(function: Any, attributes: Mapping[str, Any]) -> bool:
    """Does it draw random numbers?  Dropouts inside of an operation only where it is trained."""
    trained = all(attributes.get(name, True) for name in ("train", "training", "dropout_p"))
    return torch.Tag.nondeterministic_seeded in function.tags and trained


def _flat(value: Any) -> list[Any]:
    return [f for v in value for f in _flat(v)] if isinstance(value, tuple) else [value]


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
        try:
            found = _called(function, schema, dict(attributes), fakes)
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


def _called(
    function: Any, schema: Any, attributes: Mapping[str, Any], operands: Sequence[Any]
) -> Any:
    """The results of torch itself, on something in the place of each operand."""
    given = {name: unplain(value, operands) for name, value in attributes.items()}
    by_name = {a.name for a in schema.arguments if a.kwarg_only}
    places = [a.name for a in schema.arguments if a.name not in by_name]
    return function(*(given[n] for n in places), **{n: given[n] for n in by_name})
