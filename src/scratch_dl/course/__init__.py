"""The interface that the paper's course asks for (EPFL EE-559, 2022, mini-project 2), over `scratch_dl.nn`.

`from scratch_dl.course import *` is a whole `Miniproject_2/model.py` as the course's test program imports it.
"""

from scratch_dl.course.model import Model
from scratch_dl.course.modules import (
    MSE,
    SGD,
    Conv2d,
    Module,
    NearestUpsampling,
    ReLU,
    Sequential,
    Sigmoid,
    TransposeConv2d,
    Upsampling,
)

__all__ = [
    "MSE",
    "SGD",
    "Conv2d",
    "Model",
    "Module",
    "NearestUpsampling",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "TransposeConv2d",
    "Upsampling",
]
