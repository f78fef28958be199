"""The verification before a training: every module, the network, the loss and the optimizer, on copies."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Generator, Tensor

from scratch_dl.config.build import full_verification
from scratch_dl.config.schema import Verification
from scratch_dl.models import CHANNELS, check_size
from scratch_dl.nn import Module, MSELoss, Observer, Sequential, Skip, observing
from scratch_dl.optim import Optimizer
from scratch_dl.system.checks import Pair
from scratch_dl.system.seeding import seeded
from scratch_dl.verification.bands import ORACLE
from scratch_dl.verification.battery import NO_ORACLE, Input, all_checks
from scratch_dl.verification.blame import LOSS
from scratch_dl.verification.contract import SAME_TENSOR
from scratch_dl.verification.counterexample import explain
from scratch_dl.verification.counterparts import is_container
from scratch_dl.verification.geometries import GeometryCase, cases_for
from scratch_dl.verification.lockstep import check_lockstep
from scratch_dl.verification.network import check_composed, check_slope
from scratch_dl.verification.optimizer import OPTIMIZER, check_optimizer, check_updates
from scratch_dl.verification.passes import BrokenPassError, BrokenReferenceError, Function, converted, copied, foreign
from scratch_dl.verification.references import leaves, reference_for
from scratch_dl.verification.report import NETWORK, Finding, Report
from scratch_dl.verification.trace import Batch, own_step

_SAMPLES = 2
_LONG = 64


def verify_network(
    network: Module,
    optimizer: Optimizer,
    size: Pair,
    settings: Verification | None = None,
    *,
    loss: Module | None = None,
    seed: int = 0,
) -> Report:
    """Verify every module of a network at its own shapes, the network as a whole, its loss and its optimizer.

    Copies are verified; the network, the loss, the optimizer and every random state stay as they are.

    Args:
        network: maps images (n, 3, H, W) to images of the same shape.
        optimizer: of its parameters.
        size: (H, W) of the images, which are drawn from U(0, 1).
        settings: how much is verified; that of conf/verification/full.yaml if None.
        loss: the MSELoss if None.
        seed: of all draws.
    """
    start = time.perf_counter()
    settings = settings or full_verification()
    with seeded("verification", seed):
        own, its_optimizer, its_loss = copied((network, optimizer, loss or MSELoss()))
        own.to(dtype=torch.float64, device="cpu")
        if isinstance(its_optimizer, Optimizer):  # back to its first step, as the twin's
            fresh = [{} for _ in its_optimizer.parameters]  # type: ignore[var-annotated]
            its_optimizer.load_state_dict({"lr": its_optimizer.lr, "steps": 0, "state": fresh})
        suite = _Suite(own, its_optimizer, its_loss.to(device="cpu"), size, settings, seed)
        suite.modules()
        if settings.geometries:
            suite.geometries()
        suite.composed()
        suite.explain()
    suite.report.seconds = time.perf_counter() - start
    return suite.report


class _Suite:
    def __init__(
        self, network: Module, optimizer: Optimizer, loss: Module, size: Pair, settings: Verification, seed: int
    ) -> None:
        self.network = network
        self.optimizer: Any = optimizer  # a configuration may name another kind of object
        self.loss = loss
        self.settings = settings
        self.oracle = settings.oracle
        self.dtypes = (torch.float64, torch.float32) if settings.float32 else (torch.float64,)
        self.seed = seed
        self.report = Report("verification")
        if not self.oracle:
            self.report.note(NO_ORACLE)
        self.shape = (CHANNELS, *self._reduced(size))
        self.exact = self._exact()
        self.network.to(dtype=self.exact)
        self.checked: dict[str, Module] = {}
        self.functions: dict[str, Function | None] = {}
        self.inputs: dict[str, Sequence[Input]] = {}

    def _reduced(self, size: Pair) -> Pair:
        """The size, or a smaller one whose sides have the same remainders modulo 16, if the network takes it."""
        height, width = (side if side <= _LONG else _LONG - 16 + (side - 1) % 16 + 1 for side in size)
        if (height, width) == size:
            return size
        try:
            check_size(self.network, (height, width))
        except ValueError:
            return size
        self.report.note(
            f"verified at {height}x{width}, whose sides have the remainders of {size[0]}x{size[1]} modulo 16"
        )
        return height, width

    def _exact(self) -> torch.dtype:
        """float64, or float32 for a network in which a user's own module takes float32 alone."""
        for dtype in (torch.float64, torch.float32):
            self.exact = dtype
            try:
                own_step(converted(self.network, dtype), copied(self.loss), self._batch(0))
            except BrokenPassError:
                continue
            if dtype == torch.float32:
                self.report.note("the network takes no float64: as a whole it was verified in float32")
            return dtype
        return torch.float64  # it takes neither, as the verdicts will say

    def modules(self) -> None:
        """Check each module at the shape of its input in the network, and containers around an identity."""
        shapes = self._shapes()
        for name, module in self.network.named_modules():
            if is_container(module):
                if isinstance(module, Skip) and name in shapes:
                    alone = copied(module)
                    alone.inner = Sequential()
                    self._check(name, alone, [shapes[name]])
            elif name in shapes:
                self._check(name or NETWORK, module, [shapes[name]])
            else:
                self.report.note(f"{name} was not reached by a forward of the network, as a call module(input)")
        images = (_SAMPLES, *self.shape)
        self._check(LOSS, self.loss, [images, images])

    def _check(self, name: str, module: Module, inputs: Sequence[tuple[int, ...]]) -> None:
        self.report.kinds[name] = type(foreign(module)).__name__
        self.checked[name], self.inputs[name] = module, inputs
        try:
            function = reference_for(module) if self.oracle else None
            self.functions[name] = function
            found = all_checks(name, module, function, inputs, self.seed, self.report.note, self.dtypes)
        except (TypeError, ValueError) as error:  # raised by its reference; the module's own errors are verdicts
            raise BrokenReferenceError(f"{name} cannot be verified: {error}") from error
        if function is None and self.oracle:
            looked = ", ".join(dict.fromkeys(finding.check for finding in found if finding.check != SAME_TENSOR))
            self.report.note(
                f"{name} has no reference: a forward that is wrong, and its backward with it, is not seen; it was "
                f"checked by: {looked}"
            )
        self.report.add(finding for finding in found if finding.check != SAME_TENSOR)

    def geometries(self) -> None:
        """Check each class that the network has at all shapes of its table, with a verdict for the class."""
        kinds: dict[type[Module], Module] = {}
        for module in (*leaves(self.network).values(), self.loss):
            kinds.setdefault(type(module), module)
        for kind, sample in kinds.items():
            cases = cases_for(sample)
            name = kind.__name__ if kind.__name__ not in self.checked else f"class {kind.__name__}"
            self.report.kinds[name] = f"{len(cases)} geometries"
            for number, case in enumerate(cases):
                made = self._made(kind, case)
                if made is None:
                    continue
                function = reference_for(made) if self.oracle else None
                found = all_checks(name, made, function, case.shapes, self.seed + number, self.report.note, self.dtypes)
                where = ", ".join(f"{key}={value}" for key, value in case.arguments.items())
                self.report.add(_with_detail(finding, where) for finding in found)

    def _made(self, kind: type[Module], case: GeometryCase) -> Module | None:
        """An object of the class; None, and a note, if its constructor takes other arguments."""
        try:
            module = kind(**case.arguments)
        except TypeError:
            self.report.note(f"{kind.__name__} takes arguments of its own: checked at the network's shapes only")
            return None
        generator = Generator().manual_seed(self.seed)
        for _, parameter in module.named_parameters():
            parameter.value = torch.randn(parameter.shape, generator=generator).to(parameter.value)
        return module.to(dtype=torch.float64)

    def composed(self) -> None:
        """Check the network as a whole, its contract with loss and optimizer, and the lock-step."""
        kind = type(self.optimizer).__name__
        self.report.kinds |= {OPTIMIZER: kind, NETWORK: ""}
        batch = self._batch(0)
        network, optimizer = copied((self.network, self.optimizer))
        if self._draws():
            self.report.note(
                "the network draws random numbers: its modules and the optimizer were verified, not the whole"
            )
            self.optimizer_alone(network, optimizer, batch)
            return
        if self.oracle:
            self.report.add(check_composed(network, self.loss, batch, self.exact))
            if self.settings.float32 and self.exact == torch.float64:
                single = converted(network, torch.float32)
                self.report.add(check_composed(single, self.loss, batch.to(torch.float32), self.exact))
        if not network.parameters():
            self.report.note("the network has no parameters: no slope, no optimizer and no lock-step were verified")
            return
        if self.exact == torch.float64:
            self.report.add(check_slope(network, self.loss, batch, Generator().manual_seed(self.seed)))
        if not self.optimizer_alone(network, optimizer, batch):
            return
        if self.oracle and self.settings.lockstep_steps:
            pairs = [self.exact, *([torch.float32] if self.settings.float32 and self.exact == torch.float64 else [])]
            self.report.add(
                check_lockstep(
                    self.network, self.optimizer, self.loss, self._batch, pairs, self.settings, self.report.note
                )
            )

    def optimizer_alone(self, network: Module, optimizer: Any, batch: Batch) -> bool:
        """Check its contract with the network and its update rule; whether it can be verified at all."""
        kind = type(optimizer).__name__
        if not isinstance(optimizer, Optimizer):
            self.report.note(f"the optimizer {kind} is not a scratch_dl.optim.Optimizer: it was not verified")
            return False
        generator = Generator().manual_seed(self.seed)
        try:
            self.report.add(check_updates(optimizer, generator, self.oracle))
        except Exception as error:
            self.report.note(f"{kind} could not be tried on other parameters: {type(error).__name__}: {error}")
        self.report.add(check_optimizer(network, optimizer, self.loss, batch, generator))
        return True

    def _draws(self) -> bool:
        """Whether the network's output depends on a random state."""
        outputs = []
        for seed in (1, 2):
            with seeded("draws", seed), torch.no_grad():
                try:
                    outputs.append(copied(self.network).forward(self._batch(0).input))
                except Exception:  # the verdicts report it
                    return False
        return not torch.equal(*outputs) and bool(torch.isfinite(outputs[0]).all())

    def explain(self) -> None:
        """Find the smallest input at which each failed verdict of a module fails."""
        explain(self.report, self.checked, self.functions, self.inputs, self.seed)

    def _batch(self, step: int) -> Batch:
        generator = Generator().manual_seed(self.seed + step)
        both = torch.rand((2, _SAMPLES, *self.shape), generator=generator, dtype=torch.float64)
        return Batch(both[0], both[1]).to(self.exact)

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each module's input in a step of the network."""
        shapes: dict[str, tuple[int, ...]] = {}
        network, loss = copied((self.network, self.loss))
        recorders = [(module, _ShapeRecorder(shapes, name)) for name, module in network.named_modules()]
        try:
            with observing(recorders):
                own_step(network, loss, self._batch(0), clear=False)
        except BrokenPassError as error:
            self.report.add(
                [Finding(NETWORK, error.direction, "a step", math.inf, ORACLE[self.exact], detail=str(error))]
            )
        return shapes


class _ShapeRecorder(Observer):
    """Notes the shape of the input of the module `name`."""

    def __init__(self, shapes: dict[str, tuple[int, ...]], name: str) -> None:
        self.shapes, self.name = shapes, name

    def forward(self, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """Note the shape of the first input."""
        self.shapes[self.name] = tuple(inputs[0].shape)
        return function(*inputs)


def _with_detail(finding: Finding, detail: str) -> Finding:
    details = "; ".join(part for part in (detail, finding.detail) if part)
    return finding if finding.passed else replace(finding, detail=details)
