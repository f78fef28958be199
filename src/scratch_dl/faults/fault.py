"""A fault: a deliberate mistake in one place, and how it is put into a network, loss, optimizer or data set."""

import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from scratch_dl import nn, optim
from scratch_dl.nn import Module
from scratch_dl.nn.adapter import Adapted
from scratch_dl.system.errors import ConfigError

if TYPE_CHECKING:
    from scratch_dl.data import DataSet


@dataclass(frozen=True)
class Fault:
    """A deliberate mistake in one place.

    Attributes:
        number: in the catalogue.
        name: by which it is chosen.
        place: the class and method, or the setting.
        direction: in which it is wrong: forward, grad_input, grad_weight, grad_bias, contract, init or settings.
        what: the mistake in a sentence.
        sees: what a person sees of it.
        cure: what mends it.
        needs: what a training must have for the fault to change anything.
        swaps: right class -> the class with the mistake, of modules and losses.
        matters: of a module to be swapped, whether the mistake changes anything at its settings.
        network: puts it into a network otherwise; the names of the modules it has changed.
        optimizer: puts it into an optimizer; whether it could.
        data: puts it into a data set.
    """

    number: str
    name: str
    place: str
    direction: str
    what: str
    sees: str
    cure: str
    needs: str
    swaps: Mapping[type[Module], type[Module]] = field(default_factory=dict)
    matters: Callable[[Module], bool] = lambda _: True
    network: Callable[[Module], list[str]] | None = None
    optimizer: Callable[[optim.Optimizer], bool] | None = None
    data: "Callable[[DataSet], DataSet] | None" = None

    def put_into_network(self, network: Module) -> list[str]:
        """Change the modules that the fault is about, and return their names; none for a fault in another place.

        Raises:
            ConfigError: if the network has none that it would change.
        """
        kinds = {kind for kind in self.swaps if not issubclass(kind, nn.Loss)}
        if not kinds and self.network is None:
            return []
        names = self.network(network) if self.network else []
        for name, module in network.named_modules():
            if type(module) in kinds and self.matters(module):
                module.__class__ = self.swaps[type(module)]
                names.append(name)
        if not names:
            raise ConfigError(f"fault={self.name} needs {self.needs}, which this network lacks")
        return names

    def put_into_loss(self, loss: Module) -> Module:
        """The loss, changed if the fault lies there.

        Raises:
            ConfigError: if it cannot have the fault.
        """
        if any(issubclass(kind, nn.Loss) for kind in self.swaps):
            if type(loss) not in self.swaps:
                got = type(loss.inner if isinstance(loss, Adapted) else loss).__name__
                raise ConfigError(f"fault={self.name} needs {self.needs}, but got {got}; leave one of the two out")
            loss.__class__ = self.swaps[type(loss)]
        return loss

    def put_into_optimizer(self, optimizer: optim.Optimizer) -> None:
        """Change the optimizer if the fault lies there.

        Raises:
            ConfigError: if it cannot have the fault.
        """
        if self.optimizer is not None and not self.optimizer(optimizer):
            raise ConfigError(f"fault={self.name} needs {self.needs}, but got {type(optimizer).__name__}")

    def put_into_data(self, data: "DataSet") -> "DataSet":
        """The data set, or a changed one if the fault lies there."""
        return self.data(data) if self.data else data

    def __str__(self) -> str:
        """The fault in a sentence for the terminal, within 80 columns."""
        text = f"fault: {self.number} {self.name}: {self.what} ({self.place})"
        return textwrap.fill(text, 80, subsequent_indent=" " * 7)
