"""Arguments and input shapes of each class of module: each row catches another way to get its sums wrong."""

from typing import Any, NamedTuple

from scratch_dl import nn
from scratch_dl.nn import Module


class GeometryCase(NamedTuple):
    """Constructor arguments, and the shape of each input of the forward."""

    arguments: dict[str, Any]
    shapes: list[tuple[int, ...]]


def _conv(c: int, o: int, size: tuple[int, int], batch: int = 2, **settings: Any) -> GeometryCase:
    return GeometryCase({"in_channels": c, "out_channels": o, **settings}, [(batch, c, *size)])


def _loss(*shape: int, **settings: Any) -> GeometryCase:
    return GeometryCase(settings, [shape, shape])


GEOMETRIES: dict[type[Module], list[GeometryCase]] = {
    nn.Conv2d: [
        _conv(2, 3, (5, 4), kernel_size=1),
        _conv(1, 1, (5, 4), batch=1, kernel_size=3),
        _conv(2, 3, (5, 7), kernel_size=3, padding=1),
        _conv(4, 2, (5, 7), kernel_size=3, padding=(1, 2)),
        _conv(4, 2, (5, 7), kernel_size=(2, 3), bias=False),
        _conv(2, 3, (7, 8), kernel_size=(2, 3), dilation=(2, 1)),
        _conv(4, 2, (7, 8), kernel_size=(2, 4), dilation=(3, 1), padding=(1, 2)),
        _conv(2, 3, (6, 7), kernel_size=3, stride=2, padding=1),
        _conv(4, 2, (6, 7), kernel_size=4, stride=2, padding=1),
        _conv(2, 3, (8, 9), kernel_size=2, stride=3),
        _conv(2, 3, (6, 8), kernel_size=3, stride=(1, 3)),
        _conv(3, 2, (9, 11), kernel_size=(3, 2), stride=(2, 3), padding=(2, 1), dilation=(1, 3)),
        _conv(2, 3, (3, 2), kernel_size=5, padding=2),
    ],
    nn.ConvTranspose2d: [
        _conv(2, 3, (5, 4), kernel_size=1),
        _conv(1, 1, (5, 4), batch=1, kernel_size=3),
        _conv(2, 4, (5, 7), kernel_size=(2, 3)),
        _conv(4, 2, (5, 7), kernel_size=3, padding=(1, 2), bias=False),
        _conv(2, 3, (3, 4), kernel_size=4, stride=2, padding=1),
        _conv(3, 2, (3, 4), kernel_size=3, stride=2, padding=1, output_padding=1),
        _conv(2, 3, (3, 4), kernel_size=2, stride=3, output_padding=2),
        _conv(2, 4, (5, 4), kernel_size=(2, 3), dilation=(3, 2)),
        _conv(3, 2, (4, 5), kernel_size=(3, 2), stride=(2, 3), padding=(1, 0), output_padding=(0, 2), dilation=(2, 1)),
    ],
    nn.Upsampling: [
        _conv(2, 3, (3, 4), kernel_size=3),
        _conv(4, 2, (4, 3), kernel_size=3),
        _conv(2, 3, (3, 4), kernel_size=4, bias=False),
        _conv(1, 1, (1, 1), batch=1, kernel_size=2),
        _conv(2, 3, (3, 2), kernel_size=(1, 4), scale_factor=(3, 2)),
        _conv(2, 3, (3, 4), kernel_size=3, padding=(0, 2)),
        _conv(2, 3, (3, 4), kernel_size=3, mode="transposed"),
        _conv(4, 2, (4, 3), kernel_size=4, mode="transposed"),
        _conv(2, 3, (3, 2), kernel_size=(1, 5), scale_factor=(3, 2), mode="transposed", bias=False),
        _conv(2, 3, (3, 4), kernel_size=3, padding=1, mode="transposed"),
    ],
    nn.UpsamplingNearest2d: [
        GeometryCase({"scale_factor": 2}, [(2, 3, 3, 4)]),
        GeometryCase({"scale_factor": (3, 1)}, [(1, 2, 2, 5)]),
        GeometryCase({"scale_factor": 1}, [(2, 1, 1, 3)]),
    ],
    nn.ReLU: [GeometryCase({}, [(2, 3, 5, 4)]), GeometryCase({}, [(7,)])],
    nn.Sigmoid: [GeometryCase({}, [(2, 3, 5, 4)]), GeometryCase({}, [(7,)])],
    nn.MSELoss: [_loss(2, 3, 5, 4), _loss(3, 2, reduction="sum"), _loss(1)],
    nn.L1Loss: [_loss(2, 3, 5, 4), _loss(3, 2, reduction="sum"), _loss(1)],
    nn.CharbonnierLoss: [
        _loss(2, 3, 5, 4),
        _loss(2, 3, 5, 4, eps=1.0),
        _loss(3, 2, eps=0.1, reduction="sum"),
        _loss(1),
    ],
}


def cases_for(module: Module) -> list[GeometryCase]:
    """The cases of a module's class, or of the nearest base that has some."""
    return next((GEOMETRIES[kind] for kind in type(module).__mro__ if kind in GEOMETRIES), [])
