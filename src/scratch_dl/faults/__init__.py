"""Real mistakes of hand-written networks, each named and put into a healthy network from outside: `train fault=<name>`.

catalogue.py        the table of all faults
fault.py            what a fault is, and how it is put into a training
modules.py          wrong backward passes, as subclasses of the right modules
outside_modules.py  mistakes in clearing gradients, initial weights, geometry, learning rate, momentum and data
"""

from scratch_dl.faults.catalogue import FAULTS, NONE, find, help_text
from scratch_dl.faults.fault import Fault

__all__ = ["FAULTS", "NONE", "Fault", "find", "help_text"]
