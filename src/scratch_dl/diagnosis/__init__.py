"""Why a training does not converge: what is seen before and during it, and a verdict with cause, module and cure.

inspection.py    before the first step: data, geometry, initial weights, gradients' slopes, learning rate
recognition.py   which known mistake makes the verification fail
signals.py       a watched step on copies
output_class.py  what the output has become
rules.py         which signal beyond which threshold is a sign of which cause;  signs.py  from signals to signs
verdict.py       from signs to one verdict;  causes.py  what it can name;  figure.py  a picture of it
diagnosis.py     all of it, for one training
"""

from scratch_dl.diagnosis.diagnosis import Diagnosis, explain, lines, own_signals
from scratch_dl.diagnosis.recognition import known_mistakes
from scratch_dl.diagnosis.rules import RULES, Rule
from scratch_dl.diagnosis.signs import read_signs
from scratch_dl.diagnosis.verdict import Sign, Verdict, conclude

__all__ = [
    "RULES",
    "Diagnosis",
    "Rule",
    "Sign",
    "Verdict",
    "conclude",
    "explain",
    "known_mistakes",
    "lines",
    "own_signals",
    "read_signs",
]
