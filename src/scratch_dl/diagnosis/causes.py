"""What a verdict can name: the mistakes of the fault bank, and causes that are not a single mistake."""

from typing import NamedTuple

from scratch_dl.faults import FAULTS

HEALTHY, UNKNOWN, TOO_SHORT = "healthy", "unknown", "too_short"


class Cause(NamedTuple):
    """What is wrong, and what cures it, each in a sentence."""

    what: str
    cure: str


CAUSES = {
    HEALTHY: Cause("no rule of the diagnosis fired", ""),
    UNKNOWN: Cause(
        "the run was not watched (diagnosis=off)",
        "train again under diagnosis=default",
    ),
    TOO_SHORT: Cause(
        "no rule of the diagnosis fired, but the training is too short to judge an output without clear progress",
        "train longer (trainer.epochs)",
    ),
    "forward_wrong": Cause(
        "the forward does not compute what its reference does",
        "`python -m scratch_dl.verify` shows the smallest input at which it fails",
    ),
    "gradient_wrong": Cause(
        "the gradient is not the derivative of the forward",
        "`python -m scratch_dl.verify` shows the smallest input at which it fails",
    ),
    "gradient_not_linear": Cause(
        "the gradient is not linear in the incoming one",
        "multiply by the incoming gradient, once, and by nothing else that depends on it",
    ),
    "gradient_never_cleared": Cause(
        "zero_grad does not clear a gradient, so that the gradients of all steps add up",
        "set the parameter's own gradient to zero in place",
    ),
    "gradient_ignores_error": Cause(
        "the gradient at the last module's input does not follow the output's error",
        "check the backward of the last module and of the loss",
    ),
    "contract_broken": Cause(
        "the module breaks a rule that a training relies on",
        "`python -m scratch_dl.verify` shows the rule that is broken",
    ),
    "optimizer_wrong": Cause(
        "the optimizer's step is not the one that its rule gives",
        "`python -m scratch_dl.verify` shows how it differs",
    ),
    "data_divided_twice": Cause(
        "images range from 0 to 1/255 instead of 0 to 1",
        "divide the images by 255 once, not twice",
    ),
    "pixels_never_read": Cause(
        "some pixels change nothing in the output",
        "use a kernel that, times its dilation, covers the stride",
    ),
    "init_too_small": Cause(
        "the module's output is far smaller than its input",
        "draw the weights by the fan-in, as init: pytorch, he or xavier does",
    ),
    "init_too_large": Cause(
        "the module's output is far larger than its input",
        "draw the weights by the fan-in, as init: pytorch, he or xavier does",
    ),
    "learning_rate_too_large": Cause(
        "the first steps move the network to where no gradient passes",
        "a smaller optimizer.lr, or trainer.clip_norm",
    ),
    "dead_units": Cause(
        "nearly all units of a layer are 0 for every image, so that no gradient passes",
        "a smaller optimizer.lr, or another init",
    ),
    "vanishing_gradient": Cause(
        "the first layer's gradient is tiny compared with the last one's",
        "another init (he), or skip connections (model=unet)",
    ),
    "exploding_gradient": Cause(
        "the first layer's gradient is far larger than the last one's",
        "trainer.clip_norm, or another init",
    ),
    "saturated": Cause(
        "the output's sigmoid is so far in its tails that hardly any gradient passes",
        "a smaller optimizer.lr, or weights drawn by the fan-in",
    ),
    "not_converged": Cause(
        "the output is worse than the noisy input, and no cause was seen",
        "train longer (trainer.epochs), or by another optimizer.lr",
    ),
    "output_collapsed": Cause(
        "the output does not depend on the image",
        "another optimizer.lr: working ones lie between 0.1 and 10 for plain SGD under the mean squared error, "
        "and near 0.004 for Adam",
    ),
}
CAUSES |= {fault.name: Cause(fault.what, fault.cure) for fault in FAULTS.values()}
