"""The table of faults: what is wrong, where, what a person sees, and what fixes it.

The faults are real: each was found in public code or reports of hand-written networks for one course's project.
"""

import textwrap

from scratch_dl import nn
from scratch_dl.faults import modules, outside_modules
from scratch_dl.faults.fault import Fault
from scratch_dl.nn import Module
from scratch_dl.system.checks import nearest
from scratch_dl.system.errors import ConfigError

NONE = "none"
_WIDTH = 76


def _overlaps(module: Module) -> bool:
    assert isinstance(module, nn.Conv2d)
    extents = [d * (k - 1) + 1 for d, k in zip(module.dilation, module.kernel_size, strict=True)]
    return any(s < extent for s, extent in zip(module.stride, extents, strict=True))


def _strided(module: Module) -> bool:
    return isinstance(module, nn.Conv2d) and max(module.stride) > 1


def _has_bias(module: Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.bias is not None


def _wider_than_a_pixel(module: Module) -> bool:
    return isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1


def _enlarges_by_repetition(module: Module) -> bool:
    return getattr(module, "mode", "nearest") == "nearest"


_ALL = (
    Fault(
        "F1",
        "sigmoid_gradient_at_upstream",
        "Sigmoid.backward",
        "grad_input",
        "sigma' is evaluated at the incoming gradient, and not multiplied by it",
        "the output goes to 0 within a few steps, whatever the geometry",
        "return grad_output * output * (1 - output), with the output that forward kept",
        "a Sigmoid",
        {nn.Sigmoid: modules.SigmoidAtUpstream},
    ),
    Fault(
        "F2",
        "init_tiny",
        "Conv2d init",
        "init",
        "weights and biases are drawn from N(0, 1e-6^2)",
        "the output is 0.5 everywhere, and gradients vanish layer by layer",
        "draw the weights by the fan-in, as init: pytorch, he or xavier does",
        "a convolution",
        network=outside_modules.draw_tiny,
    ),
    Fault(
        "F3",
        "conv_bias_gradient_on_class",
        "Conv2d.backward",
        "grad_bias",
        "the bias's gradient is written to the class, not to the instance",
        "the biases never move",
        "add the gradient to self.bias.grad, which the optimizer holds",
        "a Conv2d with a bias",
        {nn.Conv2d: modules.ConvBiasOnClass},
        _has_bias,
    ),
    Fault(
        "F4",
        "upsampling_gradient_averaged",
        "UpsamplingNearest2d.backward",
        "grad_input",
        "the gradients of a pixel's copies are averaged, not summed",
        "gradients shrink to a quarter at each enlargement by 2",
        "sum the gradients of the copies, without dividing by their number",
        "an upsampling by repetition (model.upsampling=nearest)",
        {nn.UpsamplingNearest2d: modules.UpsamplingNearestAveraged, nn.Upsampling: modules.UpsamplingAveraged},
        _enlarges_by_repetition,
    ),
    Fault(
        "F5",
        "upsampling_gradient_never_cleared",
        "Upsampling.zero_grad",
        "contract",
        "zero_grad clears a copy of the inner convolution's gradients",
        "the gradients of all past steps add up",
        "set the parameters' own gradients to zero in place",
        "a learnable Upsampling",
        network=outside_modules.keep_upsampling_gradients,
    ),
    Fault(
        "F6",
        "stale_gradient_reference",
        "Conv2d.backward",
        "contract",
        "backward makes new parameters, while the optimizer holds the old ones",
        "the parameters never change",
        "add to the gradients that are there, and replace neither them nor the parameters",
        "a Conv2d",
        {nn.Conv2d: modules.ConvNewParameters},
    ),
    Fault(
        "F7",
        "relu_forgets_input",
        "ReLU.backward",
        "grad_input",
        "forward does not keep its input, so that the mask is 0",
        "the gradient is exactly 0 from there on",
        "keep the input, or the output, in forward, and let the gradient through where it is positive",
        "a ReLU",
        {nn.ReLU: modules.ReLUForgetsInput},
    ),
    Fault(
        "F8",
        "relu_mask_from_gradient",
        "ReLU.backward",
        "grad_input",
        "the mask is taken from the gradient's sign, not from the input's",
        "all negative gradients are dropped, and the biases drift",
        "let the gradient through where the input was positive, whatever its own sign",
        "a ReLU",
        {nn.ReLU: modules.ReLUMaskFromGradient},
    ),
    Fault(
        "F9",
        "sigmoid_gradient_wrong_form",
        "Sigmoid.backward",
        "grad_input",
        "sigma' is taken to be e^x / (1 + e^x), without the square",
        "the gradient has the right sign and a wrong scale",
        "return grad_output * output * (1 - output)",
        "a Sigmoid",
        {nn.Sigmoid: modules.SigmoidWrongForm},
    ),
    Fault(
        "F10",
        "conv_bias_never_cleared",
        "Conv2d.zero_grad",
        "contract",
        "zero_grad forgets the bias",
        "the biases run away, and the output saturates",
        "clear the bias's gradient beside the weight's",
        "a Conv2d with a bias",
        network=outside_modules.keep_bias_gradients,
    ),
    Fault(
        "F11",
        "conv_bias_gradient_mean",
        "Conv2d.backward",
        "grad_bias",
        "the bias's gradient is the mean over samples and pixels, not the sum",
        "slow biases; it trains, to a worse PSNR",
        "sum the output's gradient over samples and pixels",
        "a Conv2d with a bias",
        {nn.Conv2d: modules.ConvBiasMean},
        _has_bias,
    ),
    Fault(
        "F12",
        "mse_gradient_not_divided",
        "MSELoss.backward",
        "grad_input",
        "the loss is a mean, but its gradient is not divided by the batch",
        "the right direction, with the learning rate times the batch size",
        "divide by the number of all elements, the samples among them",
        "an MSELoss (loss=mse)",
        {nn.MSELoss: modules.MSENotDivided},
    ),
    Fault(
        "F13",
        "data_scaled_wrong",
        "data",
        "settings",
        "images are 0 to 255 where 0 to 1 is meant",
        "the output saturates at 1, and PSNR is nonsense",
        "divide the images by 255, once",
        "any data",
        data=outside_modules.Scaled,
    ),
    Fault(
        "F14",
        "kernel_one_stride_two",
        "architecture",
        "settings",
        "kernels of 1x1 with stride 2: three of four pixels are never read",
        "the network cannot denoise",
        "a kernel at least as large as the stride",
        "a Conv2d with a stride above 1",
        network=outside_modules.shrink_kernels,
    ),
    Fault(
        "F15",
        "learning_rate_too_small",
        "optimizer.lr",
        "settings",
        "the learning rate is a thousandth of what a mean-reduced loss needs",
        "next to no progress, which is read as a vanishing gradient",
        "a learning rate 10 to 1000 times larger",
        "an optimizer",
        optimizer=outside_modules.shrink_learning_rate,
    ),
    Fault(
        "F16",
        "init_without_fan_in",
        "Conv2d init",
        "init",
        "weights and biases are drawn from N(0, 1), whatever the fan-in",
        "saturated from the first step",
        "draw the weights by the fan-in, as init: pytorch, he or xavier does",
        "a convolution",
        network=outside_modules.draw_unit,
    ),
    Fault(
        "F17",
        "conv_input_gradient_not_flipped",
        "Conv2d.backward",
        "grad_input",
        "the kernel is not flipped in the input's gradient",
        "the first layers learn the wrong thing, while the loss still falls",
        "correlate with the kernel flipped along both of its axes",
        "a Conv2d with a kernel above 1",
        {nn.Conv2d: modules.ConvNotFlipped},
        _wider_than_a_pixel,
    ),
    Fault(
        "F18",
        "conv_input_gradient_ignores_stride",
        "Conv2d.backward",
        "grad_input",
        "the stride is ignored in the input's gradient",
        "the first layers learn the wrong thing, while the loss still falls",
        "put the output's gradient at every stride-th pixel of the input",
        "a Conv2d with a stride above 1",
        {nn.Conv2d: modules.ConvIgnoresStride},
        _strided,
    ),
    Fault(
        "F19",
        "conv_input_gradient_assigned",
        "Conv2d.backward",
        "grad_input",
        "overlapping windows are assigned instead of added in the input's gradient",
        "too small a gradient where windows overlap",
        "add what each window contributes to a pixel",
        "a Conv2d whose windows overlap (a kernel above the stride)",
        {nn.Conv2d: modules.ConvAssigned},
        _overlaps,
    ),
    Fault(
        "F20",
        "sgd_momentum_shared",
        "SGD",
        "contract",
        "parameters of one shape share one momentum buffer",
        "instability",
        "keep one buffer for each parameter, not for each shape",
        "optimizer=sgd with a momentum",
        optimizer=outside_modules.share_momentum,
    ),
)
FAULTS = {fault.name: fault for fault in _ALL}


def find(name: object) -> Fault | None:
    """The fault of this name; None for "none".

    Raises:
        ConfigError: if there is no such fault.
    """
    if name is None or name == NONE:
        return None
    if not isinstance(name, str) or name not in FAULTS:
        close = nearest(str(name), FAULTS)
        raise ConfigError(f"fault must be none or a name that fault=help lists, but got {name!r}{close}")
    return FAULTS[name]


def help_text() -> str:
    """The catalogue, within 80 columns."""
    lines = ["Deliberate mistakes, for train and verify, one at a time: fault=<name>"]
    for fault in FAULTS.values():
        needs = "" if fault.data else f" Needs {fault.needs}."
        text = f"{fault.what}: {fault.sees}.{needs}"
        lines += [
            "",
            f"{fault.name}  ({fault.number}, {fault.place})",
            textwrap.indent(textwrap.fill(text, _WIDTH), "    "),
        ]
    return "\n".join(lines)
