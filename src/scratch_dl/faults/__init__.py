"""Real mistakes of hand-written networks, each named and put into a healthy network from outside: `train fault=<name>`.

modules.py    wrong backward passes, as subclasses of the right modules
others.py     wrong gradients' clearing, initial weights, geometry, learning rate, momentum, data
catalogue.py  the table of all of them
"""

from scratch_dl.faults.catalogue import FAULTS, NONE, Fault, find, help_text

__all__ = ["FAULTS", "NONE", "Fault", "find", "help_text"]
