"""What every hand-written module has: parameters, a forward, a backward, and a cache that links one to the other."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor

from scratch_dl.nn.observer import Observer
from scratch_dl.system.checks import nearest

FLOATS = (torch.float32, torch.float64)


class Parameter:
    """A learnable tensor `value` and the gradient `grad` of the loss with respect to it (zeros at first, never None).

    Both can be read and assigned. What is assigned is copied, so that a later update in place changes no tensor of the
    caller's; what is read is the live tensor, which `backward` and `step` update in place (clone it to keep it).
    A value of another dtype takes the gradient along.

    Raises:
        TypeError: if what is assigned is not a float32 or float64 tensor.
        ValueError: if its shape is not the parameter's.
    """

    def __init__(self, value: Tensor) -> None:
        self._value = check_floats("value", value).detach().clone()
        self._grad = torch.zeros_like(self._value)

    @property
    def value(self) -> Tensor:
        """The tensor that the next forward, backward or step uses."""
        return self._value

    @value.setter
    def value(self, value: Tensor) -> None:
        if value is self._value:  # `parameter.value += x` assigns what it has just changed in place
            return
        self._value = self._same_shape("value", value)
        self._grad = self._grad.to(value.device, value.dtype)

    @property
    def grad(self) -> Tensor:
        """The sum of what every backward since the last `zero_grad` has added."""
        return self._grad

    @grad.setter
    def grad(self, grad: Tensor) -> None:
        if grad is self._grad:
            return
        self._grad = self._same_shape("grad", grad)

    @property
    def shape(self) -> torch.Size:
        """Shape of value and gradient."""
        return self.value.shape

    def zero_grad(self) -> None:
        """Set the gradient to zero."""
        self.grad.zero_()

    def to(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Self:
        """Convert value and gradient; returns the parameter itself."""
        self._value = self._value.to(device=device, dtype=dtype)
        self._grad = self._grad.to(device=device, dtype=dtype)
        return self

    def _same_shape(self, name: str, tensor: Tensor) -> Tensor:
        if check_floats(name, tensor).shape != self.shape:
            got = tuple(tensor.shape)
            raise ValueError(f"{name} must have the parameter's shape {tuple(self.shape)}, but got {got}")
        return tensor.detach().clone()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={tuple(self.shape)}, dtype={self.value.dtype})"


class Module:
    """A function with a backward pass of its own.

    `forward` keeps what `backward` needs; one `backward` uses it up. In evaluation mode (`eval()`) nothing is kept.
    Parameters and modules are found among the instance's attributes, in the order of their assignment.

    Attributes:
        observers: see every call of the module; none in normal use. A copy, by copy or pickle, has none.
    """

    forward: Callable[..., Tensor]
    backward: Callable[..., Tensor]

    training = True
    observers: tuple[Observer, ...] = ()
    _cache: Any = None

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The same as `forward`, seen by the observers."""
        if not self.observers:
            return self.forward(*inputs)
        function = self.forward
        for observer in self.observers:
            function = partial(observer.forward, function)
        return function(*inputs)

    def call_backward(self, *grad_outputs: Tensor, **options: bool) -> Tensor:
        """The same as `backward`, seen by the observers."""
        if not self.observers:
            return self.backward(*grad_outputs, **options)
        function = self.backward
        for observer in self.observers:
            function = partial(observer.backward, function)
        return function(*grad_outputs, **options)

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the output for an input of that size: the same, unless the module says otherwise."""
        return size

    def children(self) -> Iterator[tuple[str, "Module"]]:
        """(name, module) of the modules directly below."""
        return ((name, value) for name, value in vars(self).items() if isinstance(value, Module))

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, "Module"]]:
        """(dotted name, module) of this module ("") and of every one below, each once."""
        yield from self._named_modules(prefix, set())

    def _named_modules(self, prefix: str, seen: set[int]) -> Iterator[tuple[str, "Module"]]:
        if id(self) not in seen:
            seen.add(id(self))
            yield prefix, self
            for name, child in self.children():
                yield from child._named_modules(f"{prefix}.{name}" if prefix else name, seen)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(dotted name, parameter), each parameter once."""
        seen: set[int] = set()
        for prefix, module in self.named_modules():
            for name, parameter in module._own_parameters():
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield (f"{prefix}.{name}" if prefix else name), parameter

    def _own_parameters(self) -> Iterator[tuple[str, Parameter]]:
        return ((name, value) for name, value in vars(self).items() if isinstance(value, Parameter))

    def parameters(self) -> list[Parameter]:
        """The parameters, in the order of `named_parameters`."""
        return [parameter for _, parameter in self.named_parameters()]

    def zero_grad(self) -> None:
        """Set every gradient to zero."""
        for _, parameter in self._own_parameters():
            parameter.zero_grad()
        for _, child in self.children():
            child.zero_grad()

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of all values, by name."""
        return {name: parameter.value.clone() for name, parameter in self.named_parameters()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copy the values of `state` in; all of them or, on any error, none. The module's own dtype and device stay.

        Raises:
            ValueError: if a name is missing or unknown, or a shape differs.
        """
        own = dict(self.named_parameters())
        for name in state:
            if name not in own:
                raise ValueError(f"state has an unknown entry {name!r}{nearest(name, own)}")
        for name, parameter in own.items():
            if name not in state:
                raise ValueError(f"state lacks the entry {name!r} of shape {tuple(parameter.shape)}")
            if check_floats(f"state[{name!r}]", state[name]).shape != parameter.shape:
                raise ValueError(
                    f"state[{name!r}] must have shape {tuple(parameter.shape)}, but got {tuple(state[name].shape)}"
                )
        for name, parameter in own.items():
            parameter.value = state[name].to(parameter.value)

    def to(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Self:
        """Convert every parameter, forget what was kept for a backward, and return the module itself.

        Raises:
            TypeError: if dtype is neither float32 nor float64.
        """
        if dtype is not None and dtype not in FLOATS:
            raise TypeError(f"dtype must be torch.float32 or torch.float64, but got {dtype}")
        for _, module in self.named_modules():
            module._convert(dtype, device)
        return self.train(self.training)

    def _convert(self, dtype: torch.dtype | None, device: torch.device | str | None) -> None:
        for _, parameter in self._own_parameters():
            parameter.to(dtype, device)

    def train(self, mode: bool = True) -> Self:
        """Switch whether this module and every one below keep what a backward needs; forget what was kept."""
        for _, module in self.named_modules():
            module._set_mode(mode)
        return self

    def _set_mode(self, training: bool) -> None:
        self.training = training
        self._cache = None

    def eval(self) -> Self:
        """Do not keep what a backward needs: for validation and prediction."""
        return self.train(False)

    def _keep(self, *kept: Any) -> None:
        """Keep what backward needs, with each tensor's version, so that a change in place does not go unseen."""
        self._cache = [(item, _version(item)) for item in kept] if self.training else None

    def _take(self) -> list[Any]:
        """Return what the last forward kept, and forget it.

        Raises:
            RuntimeError: if there was none since the last backward, or a kept tensor was changed in place meanwhile.
        """
        name = type(self).__name__
        if self._cache is None:
            why = "each forward serves one backward" if self.training else "in evaluation mode a forward keeps nothing"
            raise RuntimeError(f"{name}.backward needs a {name}.forward before it ({why})")
        cache, self._cache = self._cache, None
        if any(_version(item) != version for item, version in cache):
            raise RuntimeError(f"a tensor that {name}.forward kept for its backward was changed in place after it")
        return [item for item, _ in cache]

    def __getstate__(self) -> dict[str, Any]:
        """The state of a copy, by copy or pickle: nothing kept of a forward, and no observers."""
        return {name: value for name, value in self.__dict__.items() if name != "observers"} | {"_cache": None}

    def __repr__(self) -> str:
        lines = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in self.children()]
        inner = "\n  ".join(["", *lines]) + "\n" if lines else self._describe()
        return f"{type(self).__name__}({inner})"

    def _describe(self) -> str:
        """The settings, for `repr`."""
        return ""


def check_floats(name: str, tensor: Tensor) -> Tensor:
    """Return `tensor`, cut off from any autograd graph, if it is one of float32 or float64.

    Raises:
        TypeError: if it is not.
    """
    if not isinstance(tensor, Tensor) or tensor.dtype not in FLOATS:
        got = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
        raise TypeError(f"{name} must be a float32 or float64 tensor, but got {got}")
    return tensor.detach() if tensor.requires_grad else tensor


def check_input(input: Tensor, channels: int, like: Tensor) -> Tensor:
    """Return `input`, cut off from any autograd graph, if it is a batch of images that fits the weight `like`.

    Raises:
        TypeError: if it is not a tensor, or has another dtype or device.
        ValueError: if its shape is not (n, channels, h, w).
    """
    if not isinstance(input, Tensor):
        raise TypeError(f"input must be a torch.Tensor, but got {type(input).__name__}")
    if input.ndim != 4 or input.shape[1] != channels:
        raise ValueError(f"input must have shape (n, {channels}, h, w), but got {tuple(input.shape)}")
    if input.dtype != like.dtype or input.device != like.device:
        raise TypeError(
            f"input must be {like.dtype} on {like.device} as the weight is, but got {input.dtype} on {input.device}"
        )
    return input.detach() if input.requires_grad else input


def check_grad_output(grad_output: Tensor, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return a gradient, cut off from any autograd graph, if it has the output's shape and the dtype of `like`.

    Raises:
        TypeError: if it is not a tensor, or has another dtype or device.
        ValueError: if its shape differs.
    """
    if not isinstance(grad_output, Tensor):
        raise TypeError(f"grad_output must be a torch.Tensor, but got {type(grad_output).__name__}")
    if tuple(grad_output.shape) != tuple(shape):
        raise ValueError(f"grad_output must have the output's shape {tuple(shape)}, but got {tuple(grad_output.shape)}")
    if grad_output.dtype != like.dtype:
        raise TypeError(f"grad_output must be {like.dtype} as the output is, but got {grad_output.dtype}")
    if grad_output.device != like.device:
        raise TypeError(f"grad_output must be on {like.device} as the output is, but got one on {grad_output.device}")
    return grad_output.detach() if grad_output.requires_grad else grad_output


def _version(item: Any) -> int:
    """How often a tensor was changed in place, as torch counts it; 0 for tensors of its inference mode."""
    return item._version if isinstance(item, Tensor) and not item.is_inference() else 0
