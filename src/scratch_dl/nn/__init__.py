"""The hand-written network: modules with a forward and a backward each, no autograd."""

from scratch_dl.nn.activation import ReLU, Sigmoid
from scratch_dl.nn.adapter import adapt
from scratch_dl.nn.container import Sequential, Skip, parameter_gradients
from scratch_dl.nn.conv import Conv2d, ConvTranspose2d
from scratch_dl.nn.init import INITIALISERS
from scratch_dl.nn.loss import CharbonnierLoss, L1Loss, Loss, MSELoss
from scratch_dl.nn.module import Module, Parameter
from scratch_dl.nn.observer import Observer, observing
from scratch_dl.nn.upsampling import Upsampling, UpsamplingNearest2d

__all__ = [
    "INITIALISERS",
    "CharbonnierLoss",
    "Conv2d",
    "ConvTranspose2d",
    "L1Loss",
    "Loss",
    "MSELoss",
    "Module",
    "Observer",
    "Parameter",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Skip",
    "Upsampling",
    "UpsamplingNearest2d",
    "adapt",
    "observing",
    "parameter_gradients",
]
