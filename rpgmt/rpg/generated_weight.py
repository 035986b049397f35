"""What a generated weight is to those who read it by hand: a tensor that refuses to be written to.

A weight is made anew from its bank, so what is written to it is lost: at once, or with the next change of the bank, and in
copies and files. The layers themselves read plain tensors, which cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

_OPERATORS = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor", "lshift", "rshift")
_WRITERS = {"__setitem__", "__set__", *(f"__i{name}__" for name in _OPERATORS)}


class GeneratedWeight(Tensor):
    """A generated weight, or a view of one, that can be read only.

    Whatever would change it in place is an error, `.data` and `detach()` of it included; results that share its memory are of
    this class too, and others are plain tensors. What goes past torch (`.numpy()`, C++) is not seen.
    """

    refuse: Callable[[str], NoReturn]  # of the layer

    @classmethod
    def of(cls, weight: Tensor, refuse: Callable[[str], NoReturn]) -> GeneratedWeight:
        """`weight`, of this class.

        Args:
            weight: The tensor that the bank made.
            refuse: Called with what cannot be done with the weight; raises the error.
        """
        guarded = weight.as_subclass(cls)
        guarded.__dict__["refuse"] = refuse
        return guarded

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():
            written = _written(func, args, kwargs)
            if written is not None:
                written.__dict__["refuse"]("be frozen by itself" if func is Tensor.requires_grad_ else "be changed in place")
            guarded = next((value for value in [*args, *kwargs.values()] if isinstance(value, cls)), None)
            result = func(*map(_plain, args), **{name: _plain(value) for name, value in kwargs.items()})
            if guarded is None:  # in a list, which makes no views
                return result
            if isinstance(result, Tensor):
                return _as(guarded, result)
            if isinstance(result, tuple | list) and any(isinstance(value, Tensor) for value in result):
                made = [_as(guarded, value) if isinstance(value, Tensor) else value for value in result]
                return type(result)(made) if type(result) in (tuple, list) else result
            return result


def _written(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> GeneratedWeight | None:
    """The generated weight that `func` would change, if it would."""
    name = getattr(func, "__name__", "")
    targets = [kwargs.get("out")]
    writes = name in _WRITERS or (name.endswith("_") and not name.endswith("__"))
    if writes and func is not Tensor.grad.__set__:  # type: ignore[union-attr]
        targets += [args[0] if args else kwargs.get("input", kwargs.get("tensor"))]
    flat = [value for target in targets for value in (target if isinstance(target, tuple | list) else [target])]
    return next((value for value in flat if isinstance(value, GeneratedWeight)), None)


def _plain(value: Any) -> Any:
    return value.as_subclass(Tensor) if isinstance(value, GeneratedWeight) else value


def _as(guarded: GeneratedWeight, result: Tensor) -> Tensor:
    """`result`, guarded where it lies in the same memory."""
    if result.is_sparse or result.untyped_storage().data_ptr() != guarded.untyped_storage().data_ptr():
        return result
    return GeneratedWeight.of(result, guarded.__dict__["refuse"])
