"""What an operation of PyTorch's is given and writes, and which memory a tensor is."""

from typing import Any


def written_by(func: Any, args: tuple, kwargs: dict) -> list[Any]:
    """The tensors into which an operation writes."""
    from torch.utils._pytree import tree_leaves

    arguments = func._schema.arguments
    values = {argument.name: value for argument, value in zip(arguments, args, strict=False)}
    values |= kwargs
    writes = [a.name for a in arguments if a.alias_info is not None and a.alias_info.is_write]
    return tree_leaves([values[name] for name in writes if values.get(name) is not None])


def one_by_one(args: tuple, number: int) -> list[Any]:
    """What an operation on lists has for one element of them."""
    return [
        each[number] if isinstance(each, list | tuple) and number < len(each) else each
        for each in args
    ]


def is_plain(tensor: Any) -> bool:
    """Whether it is a tensor whose numbers lie in this process's memory, as NumPy can see them."""
    import torch

    if not isinstance(tensor, torch.Tensor):
        return False
    return (
        tensor.layout == torch.strided and not tensor.is_quantized and tensor.device.type == "cpu"
    )


def memory(tensor: Any) -> int:
    """The storage that a tensor is a view of."""
    return tensor.untyped_storage()._cdata


def identity(tensor: Any) -> tuple[Any, ...]:
    """What two views have in common that show the same numbers."""
    place = tensor.storage_offset(), tuple(tensor.shape), tuple(tensor.stride())
    return (tensor.untyped_storage().data_ptr() or id(tensor), *place, tensor.dtype)
