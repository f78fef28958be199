"""scratch_dl: neural networks whose forward and backward passes are written by hand, trained, tracked and proven."""

__version__ = "0.1.0"
