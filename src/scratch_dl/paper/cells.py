"""The cells of the paper's Tables I and II: our float32 compared with PyTorch's, and both with float64."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 (the field's name)
from torch import Generator, Tensor

from scratch_dl import nn
from scratch_dl.faults.modules import sigmoid_gradient_at_upstream
from scratch_dl.paper.module_timing import Spread
from scratch_dl.paper.table_modules import Figure, TableModule
from scratch_dl.verification.bands import limit_of

SYMBOLS = {"forward": "Z", "grad_input": "dL/dX", "grad_weight": "dL/dW", "grad_bias": "dL/db"}
_AT_UPSTREAM = "gradient_at_upstream"
ZERO = (0.0, 0.0)
_SIGMOID, _UPSAMPLING = (0.249991, 0.000001), (ZERO, (6.15e-12, 1.73e-12), (18.95e-8, 8.44e-8), ZERO)
# Tables I and II as printed: Z, dL/dX, dL/dW, dL/db.
PAPER: dict[str, tuple[Figure | None, ...]] = {
    "relu": (ZERO, None),
    "sigmoid": (ZERO, _SIGMOID),
    "sigmoid_gradient_at_upstream": (None, _SIGMOID),
    "mse": (ZERO, ZERO),
    "conv2d": ((3.77e-7, 1.08e-7), (7.29e-10, 2.17e-10), (8.62e-8, 1.34e-8), (1.25e-8, 1.11e-8)),
    "upsampling_nearest": _UPSAMPLING,
    "upsampling_transposed": _UPSAMPLING,
    "conv_transpose2d": (None, None, None, None),
}


@dataclass(frozen=True)
class Cell:
    """One cell of Table I or II.

    Attributes:
        table: "I" or "II".
        name, label: the module's, as in `TableModule`.
        quantity: "forward", "grad_input", "grad_weight" or "grad_bias".
        paper: the paper's figure, None where it has none.
        difference: the mean absolute difference of ours from PyTorch's, both float32.
        ours_error: ||ours - f64|| / ||f64||, f64 being PyTorch's in float64 from the same float32 numbers.
        pytorch_error: the same of PyTorch's float32.
        healthy: False for the row that shows the paper's Sigmoid.
    """

    table: str
    name: str
    label: str
    quantity: str
    paper: Figure | None
    difference: Spread
    ours_error: Spread
    pytorch_error: Spread
    healthy: bool = True

    @property
    def passed(self) -> bool:
        """Whether the worst run's error is within the band, or within four times PyTorch's worst."""
        return self.ours_error.worst <= limit_of(torch.float32, self.pytorch_error.worst)


def compare_passes(subject: TableModule, generator: Generator) -> Iterator[tuple[str, tuple[float, ...]]]:
    """Make one run; yield for each quantity our difference from PyTorch, our error and PyTorch's."""
    own, twin = subject.pair(generator)
    input = subject.input(generator)
    with torch.no_grad():
        shape = input.shape if isinstance(own, nn.MSELoss) else twin(input).shape
    target = torch.randn(shape, generator=generator)
    ours, pytorch = _own_pass(own, input, target), _twin_pass(twin, input, target)
    truth = _twin_pass(twin.double(), input.double(), target.double())
    if subject.name == "sigmoid":
        grad_output = 2 * (pytorch["forward"] - target) / target.numel()
        ours[_AT_UPSTREAM] = sigmoid_gradient_at_upstream(grad_output)
        pytorch[_AT_UPSTREAM], truth[_AT_UPSTREAM] = pytorch["grad_input"], truth["grad_input"]
    for quantity, exact in truth.items():
        mine, theirs = ours[quantity].double(), pytorch[quantity].double()
        errors = [(value - exact).norm() / exact.norm() for value in (mine, theirs)]
        yield quantity, (float((mine - theirs).abs().mean()), float(errors[0]), float(errors[1]))


@torch.no_grad()
def _own_pass(module: nn.Module, input: Tensor, target: Tensor) -> dict[str, Tensor]:
    if isinstance(module, nn.MSELoss):
        return {"forward": module(input, target), "grad_input": module.backward()}
    loss = nn.MSELoss()
    output = module(input)
    loss(output, target)
    grad_input = module.backward(loss.backward())
    grads = {f"grad_{name}": parameter.grad for name, parameter in module.named_parameters()}
    return {"forward": output, "grad_input": grad_input, **grads}


@torch.enable_grad()
def _twin_pass(module: torch.nn.Module, input: Tensor, target: Tensor) -> dict[str, Tensor]:
    leaf = input.clone().requires_grad_()
    output = module(leaf, target) if isinstance(module, torch.nn.MSELoss) else module(leaf)
    loss = output if isinstance(module, torch.nn.MSELoss) else F.mse_loss(output, target)
    grads = torch.autograd.grad(loss, [leaf, *module.parameters()])
    return dict(zip(SYMBOLS, [output.detach(), *grads], strict=False))


def cell_of(subject: TableModule, quantity: str, values: Sequence[tuple[float, ...]]) -> Cell:
    """The cell of a module's quantity, from the difference and the two errors of every run."""
    difference, ours, pytorch = (Spread.of(column) for column in zip(*values, strict=True))
    name, label, healthy = subject.name, subject.label, quantity != _AT_UPSTREAM
    if not healthy:
        name, label, quantity = f"{name}_{quantity}", "Sigmoid, slip F1", "grad_input"
    paper = PAPER[name][list(SYMBOLS).index(quantity)]
    return Cell(
        "I" if quantity == "forward" else "II", name, label, quantity, paper, difference, ours, pytorch, healthy
    )
