"""Which modules of a sequence are computed in one: by one call of a kernel, to the same numbers.

In the forward pass that is a convolution and the activation after it, in the backward pass a ReLU and the convolution
after it. A module that is observed, is of another class, or whose methods were replaced is always called itself.
"""

from scratch_dl.nn.activation import ReLU, Sigmoid
from scratch_dl.nn.conv import Conv2d, ConvTranspose2d
from scratch_dl.nn.module import Module
from scratch_dl.nn.upsampling import Upsampling

CONVOLUTIONS: tuple[type[Module], ...] = (Conv2d, ConvTranspose2d, Upsampling)
_ACTIVATIONS: dict[type[Module], str] = {ReLU: "relu", Sigmoid: "sigmoid"}
_METHODS = ("forward", "backward", "__call__")
_written: dict[type[Module], list[object]] = {}
"""The methods that each class was written with; a user may put others in their place, and wants those called."""


def register(*kinds: type[Module]) -> None:
    """Remember the methods that classes have now."""
    for kind in kinds:
        _written[kind] = [getattr(kind, name) for name in _METHODS]


register(*CONVOLUTIONS, *_ACTIVATIONS)


def has_own_methods(module: Module) -> bool:
    """Whether the module computes as the registered class that it is of: nobody has put another method in a place."""
    kind = type(module)
    written = next((_written[base] for base in kind.__mro__ if base in _written), None)
    replaced = "forward" in vars(module) or "backward" in vars(module)
    return not replaced and written == [getattr(kind, name) for name in _METHODS]


def activation_of(module: Module, following: Module) -> str | None:
    """The activation `following` that the convolution `module` can compute along; None if it cannot."""
    activation = _ACTIVATIONS.get(type(following))
    if activation is None or type(module) not in CONVOLUTIONS or module.observers or following.observers:
        return None
    return activation if has_own_methods(module) and has_own_methods(following) else None


def passes_relu(relu: Module, module: Module) -> bool:
    """Whether `module`, the convolution after a ReLU, can compute its gradient: it has kept the ReLU's output."""
    if type(relu) is not ReLU or type(module) not in CONVOLUTIONS or relu.observers or module.observers:
        return False
    if not relu._cache or not module._cache or not has_own_methods(module) or not has_own_methods(relu):
        return False
    output, input = relu._cache[0][0], module._cache[0][0]
    places = [(tensor.data_ptr(), tensor.shape, tensor.stride()) for tensor in (output, input)]
    return places[0] == places[1]
