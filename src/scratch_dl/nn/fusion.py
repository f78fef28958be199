"""Which modules of a sequence may be computed in one.

They are a convolution and the activation after it, in the forward pass, and a ReLU and the convolution after it, in the
backward pass. A module that is of another class, or whose forward or backward was replaced, as by one that observes
it, is always called itself.
"""

from collections.abc import Callable
from typing import Any

from scratch_dl.nn.activation import ReLU, Sigmoid
from scratch_dl.nn.conv import Conv2d, ConvTranspose2d
from scratch_dl.nn.module import Module
from scratch_dl.nn.upsampling import Upsampling

_CONVOLUTIONS: tuple[type[Module], ...] = (Conv2d, ConvTranspose2d, Upsampling)
_ACTIVATIONS: dict[type[Module], str] = {ReLU: "relu", Sigmoid: "sigmoid"}
Ways = tuple[Callable[..., Any], Callable[..., Any]]
# As they were written; who replaces one in its class wants it called.
_CALL = Module.__call__
_WAYS: dict[type[Module], Ways] = {kind: (kind.forward, kind.backward) for kind in (*_CONVOLUTIONS, *_ACTIVATIONS)}


def untouched(module: Module, ways: Ways | None = None) -> bool:
    """Whether the module's class has this forward and backward (those it was written with), and itself no others."""
    kind, own = type(module), module.__dict__
    ways = ways or _WAYS.get(kind)
    has = getattr(kind, "forward", None), getattr(kind, "backward", None)
    return has == ways and kind.__call__ is _CALL and "forward" not in own and "backward" not in own


def is_convolution(module: Module) -> bool:
    """Whether it is one of this package's, and untouched."""
    return type(module) in _CONVOLUTIONS and untouched(module)


def activation_of(module: Module, following: Module) -> str | None:
    """What the convolution `module` can compute of the module that follows it; None if nothing."""
    activation = _ACTIVATIONS.get(type(following))
    return activation if activation and is_convolution(module) and untouched(following) else None


def passes_relu(relu: Module, module: Module) -> bool:
    """Whether `relu` is one, and the convolution `module` was given its output and has kept it."""
    if type(relu) is not ReLU or not relu._cache or not module._cache:
        return False
    if not is_convolution(module) or not untouched(relu):
        return False
    output, input = relu._cache[0][0], module._cache[0][0]
    places = [(tensor.data_ptr(), tensor.shape, tensor.stride()) for tensor in (output, input)]
    return places[0] == places[1]
