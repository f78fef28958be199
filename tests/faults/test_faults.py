"""Each fault changes what it says and nothing else: beside PyTorch's autograd, or a formula written out here."""

import copy
import sys
from functools import cache
from itertools import product
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (the field's name)
from variants import exhaustive

import preloaded
from scratch_dl import evaluate, faults, models, nn, optim, train, verify
from scratch_dl.config.build import build, build_network
from scratch_dl.config.composing import compose_config
from scratch_dl.config.plain import plain
from scratch_dl.faults import modules, outside_modules
from scratch_dl.nn import Parameter
from scratch_dl.system.errors import ConfigError
from scratch_dl.training import checkpoint

CATALOGUE = {  # what the issue asks for, by number
    "F1": "sigmoid_gradient_at_upstream",
    "F2": "init_tiny",
    "F3": "conv_bias_gradient_on_class",
    "F4": "upsampling_gradient_averaged",
    "F5": "upsampling_gradient_never_cleared",
    "F6": "stale_gradient_reference",
    "F7": "relu_forgets_input",
    "F8": "relu_mask_from_gradient",
    "F9": "sigmoid_gradient_wrong_form",
    "F10": "conv_bias_never_cleared",
    "F11": "conv_bias_gradient_mean",
    "F12": "mse_gradient_not_divided",
    "F13": "data_scaled_wrong",
    "F14": "kernel_one_stride_two",
    "F15": "learning_rate_too_small",
    "F16": "init_without_fan_in",
    "F17": "conv_input_gradient_not_flipped",
    "F18": "conv_input_gradient_ignores_stride",
    "F19": "conv_input_gradient_assigned",
    "F20": "sgd_momentum_shared",
}
PAPER = ["threads=1", "model.kernel_size=3", "model.upsampling=nearest", "model.channels=[8,8,8]"]
SMALL = ["debug=fast", *PAPER, "optimizer=sgd", "trainer.test=false", "tracking.detail=trial", "optimizer.lr=0.5"]
SHORT = ["verification=off", "schedule=constant", "data.crops_per_epoch=24", "diagnosis=off"]
SIDES = (3, 4, 7, 9)  # n c H W: oblong, and the strides leave a rest


def test_every_fault_of_the_catalogue_is_there_under_its_number_and_name():
    """Twenty, and no other one."""
    assert {fault.number: name for name, fault in faults.FAULTS.items()} == CATALOGUE
    assert [fault.name for fault in faults.FAULTS.values()] == list(faults.FAULTS)


@pytest.mark.parametrize("name", CATALOGUE.values())
def test_every_fault_says_what_is_wrong_where_what_is_seen_and_what_mends_it(name):
    """And is one change: of the network, the loss, the optimizer or the data."""
    fault = faults.FAULTS[name]
    directions = {"forward", "grad_input", "grad_weight", "grad_bias", "contract", "init", "settings"}
    assert fault.direction in directions
    for said in (fault.place, fault.what, fault.sees, fault.cure, fault.needs):
        assert said.strip()
        assert "\n" not in said
    places = [bool(fault.swaps), fault.network is not None, fault.optimizer is not None, fault.data is not None]
    assert sum(places) == 1, f"{name} is put into {sum(places)} places"


def built(*overrides, **changes):
    """What a training with these overrides is built of; `changes` are settings of the top level, which is faster."""
    return build(composed(overrides) | changes)


@cache
def composed(overrides):
    """The settings as plain values."""
    return plain(compose_config("train", overrides))


def test_none_is_no_fault():
    """Nor is what a configuration of before there were faults says."""
    assert faults.find("none") is None
    assert faults.find(None) is None


# What each wrong backward hands back, from the right gradients and what went in ------------------------------------


def conv(**settings):
    return lambda g: nn.Conv2d(4, 5, **{"kernel_size": (3, 2), "stride": (2, 1), "padding": 1, **settings}, generator=g)


def up(mode, scale=2):
    return lambda g: nn.Upsampling(4, 5, 3, scale_factor=scale, mode=mode, generator=g)


def oracle(module, input, *values, **settings):
    """The right forward, in PyTorch's differentiable arithmetic."""
    if isinstance(module, nn.Conv2d):
        said = {"stride": module.stride, "padding": module.padding, "dilation": module.dilation, **settings}
        return F.conv2d(input, *values, **said)
    if isinstance(module, nn.Upsampling):
        assert module.mode == "nearest"
        return F.conv2d(F.interpolate(input, scale_factor=[float(s) for s in module.scale_factor]), *values, padding=1)
    if isinstance(module, nn.UpsamplingNearest2d):
        return F.interpolate(input, scale_factor=[float(s) for s in module.scale_factor])
    return torch.relu(input) if isinstance(module, nn.ReLU) else torch.sigmoid(input)


def by_autograd(function, grad, *tensors):
    """The gradients of `function(*tensors)`."""
    tensors = [tensor.clone().requires_grad_() for tensor in tensors]
    return torch.autograd.grad(function(*tensors), tensors, grad)


def at_upstream(_m, _x, g, right):
    return {**right, "input": (-g).exp() / (1 + (-g).exp()) ** 2}


def without_the_square(_m, x, g, right):
    return {**right, "input": g * x.exp() / (1 + x.exp())}


def averaged(m, _x, _g, right):
    return {**right, "input": right["input"] / (m.scale_factor[0] * m.scale_factor[1])}


def bias_nowhere(_m, _x, _g, right):
    return {**right, "bias": torch.zeros_like(right["bias"])}


def bias_mean(_m, _x, g, right):
    return {**right, "bias": right["bias"] / (g.shape[0] * g.shape[2] * g.shape[3])}


def not_flipped(m, x, g, right):
    """The gradient of a forward whose kernel is turned by 180 degrees."""
    (wrong,) = by_autograd(lambda x: oracle(m, x, m.weight.value.flip(2, 3)), g, x)
    return {**right, "input": wrong}


def dense(m, x, g, right):
    """The gradient of a forward of stride 1, of which the first rows and columns are looked at."""
    h, w = g.shape[2:]
    (wrong,) = by_autograd(lambda x: oracle(m, x, m.weight.value, stride=1)[:, :, :h, :w], g, x)
    return {**right, "input": wrong}


def assigned(m, x, g, right):
    """Tap after tap, pixel by pixel; what a later tap writes is what remains."""
    (s0, s1), (p0, p1), (d0, d1) = m.stride, m.padding, m.dilation
    wrong = torch.zeros_like(x)
    for i, j in product(range(m.kernel_size[0]), range(m.kernel_size[1])):
        for h, w in product(range(g.shape[2]), range(g.shape[3])):
            row, column = h * s0 + i * d0 - p0, w * s1 + j * d1 - p1
            if 0 <= row < x.shape[2] and 0 <= column < x.shape[3]:
                wrong[:, :, row, column] = g[:, :, h, w] @ m.weight.value[:, :, i, j]
    return {**right, "input": wrong}


def unchanged(_m, _x, _g, right):
    return right


# (fault, the healthy module, what its backward gives with the fault)
BACKWARDS = [
    pytest.param("sigmoid_gradient_at_upstream", lambda _: nn.Sigmoid(), at_upstream, id="F1"),
    pytest.param("conv_bias_gradient_on_class", conv(), bias_nowhere, id="F3"),
    pytest.param("upsampling_gradient_averaged", up("nearest"), averaged, id="F4-block"),
    pytest.param("upsampling_gradient_averaged", lambda _: nn.UpsamplingNearest2d(2), averaged, id="F4-repetition"),
    pytest.param("upsampling_gradient_averaged", lambda _: nn.UpsamplingNearest2d((2, 3)), averaged, id="F4-oblong"),
    pytest.param("upsampling_gradient_never_cleared", up("nearest"), unchanged, id="F5-first-time"),
    pytest.param("stale_gradient_reference", conv(), unchanged, id="F6"),
    pytest.param("relu_forgets_input", lambda _: nn.ReLU(), lambda _m, _x, g, _r: {"input": 0 * g}, id="F7"),
    pytest.param("relu_mask_from_gradient", lambda _: nn.ReLU(), lambda _m, _x, g, _r: {"input": g * (g > 0)}, id="F8"),
    pytest.param("sigmoid_gradient_wrong_form", lambda _: nn.Sigmoid(), without_the_square, id="F9"),
    pytest.param("conv_bias_never_cleared", conv(), unchanged, id="F10-first-time"),
    pytest.param("conv_bias_gradient_mean", conv(), bias_mean, id="F11"),
    pytest.param("conv_input_gradient_not_flipped", conv(), not_flipped, id="F17"),
    pytest.param("conv_input_gradient_not_flipped", conv(dilation=(1, 2)), not_flipped, id="F17-dilated"),
    pytest.param("conv_input_gradient_ignores_stride", conv(), dense, id="F18"),
    pytest.param("conv_input_gradient_ignores_stride", conv(stride=3, dilation=2), dense, id="F18-dilated"),
    pytest.param("conv_input_gradient_assigned", conv(), assigned, id="F19"),
    pytest.param("conv_input_gradient_assigned", conv(dilation=2), assigned, id="F19-dilated"),
]


def backward(module, input, grad):
    """The output, and the gradients by name."""
    module.zero_grad()
    output = module(input).clone()
    of_input = module.backward(grad.clone()).clone()
    return output, {"input": of_input, **{name: p.grad.clone() for name, p in module.named_parameters()}}


def faulty(name, module):
    """The same module with the fault, as the only one of a network."""
    assert faults.FAULTS[name].put_into_network(nn.Sequential({"one": module})) == ["one"]
    return module


@pytest.mark.parametrize(("name", "make", "wrong"), BACKWARDS)
def test_a_wrong_backward_is_wrong_as_it_says_and_nowhere_else(name, make, wrong, generator):
    """The forward is the healthy one to the last bit; every gradient is what the formula here, or autograd, gives."""
    module = make(generator).to(torch.float64)
    input = torch.randn(SIDES, generator=generator, dtype=torch.float64)
    healthy = copy.deepcopy(module)(input)
    grad = torch.randn(healthy.shape, generator=generator, dtype=torch.float64)
    values = [parameter.value for parameter in module.parameters()]
    names = ["input", *(name for name, _ in module.named_parameters())]
    right = dict(zip(names, by_autograd(lambda x, *v: oracle(module, x, *v), grad, input, *values), strict=True))
    expected = wrong(module, input, grad, right)
    output, got = backward(faulty(name, module), input, grad)
    assert torch.equal(output, healthy)
    assert got.keys() == expected.keys()
    for key, tensor in expected.items():
        torch.testing.assert_close(got[key], tensor, rtol=1e-11, atol=1e-12, msg=lambda said, key=key: f"{key}: {said}")
    if wrong is not unchanged:
        differing = [key for key in right if not torch.allclose(got[key], right[key])]
        assert len(differing) == 1, f"{name} is wrong in {differing}"


def test_f3_writes_the_bias_gradient_to_its_own_class_and_not_to_conv2d(generator):
    """The number is right, but no optimizer looks there."""
    module = faulty("conv_bias_gradient_on_class", conv()(generator))
    grad = torch.randn(module(torch.randn(SIDES, generator=generator)).shape, generator=generator)
    module.backward(grad)
    torch.testing.assert_close(type(module).bias_grad, grad.sum(dim=(0, 2, 3)))
    assert not hasattr(nn.Conv2d, "bias_grad")


@pytest.mark.parametrize(
    ("name", "make", "kept"),
    [
        ("upsampling_gradient_never_cleared", up("nearest"), {"weight", "bias"}),
        ("upsampling_gradient_never_cleared", up("transposed"), {"weight", "bias"}),
        ("conv_bias_never_cleared", conv(), {"bias"}),
    ],
    ids=["F5-nearest", "F5-transposed", "F10"],
)
def test_what_is_never_cleared_adds_up_over_the_steps_and_the_rest_is_cleared(name, make, kept, generator):
    """By the module's zero_grad and by the optimizer's."""
    module = make(generator).to(torch.float64)
    input = torch.randn(SIDES, generator=generator, dtype=torch.float64)
    grad = torch.randn(module(input).shape, generator=generator, dtype=torch.float64)
    _, right = backward(module, input, grad)
    module.zero_grad()
    faulty(name, module)
    optimizer = optim.SGD(module.parameters(), lr=0.1)
    for times in (1, 2, 3):
        optimizer.zero_grad()
        _, got = backward(module, input, grad)
        for key, tensor in right.items():
            torch.testing.assert_close(got[key], tensor * (times if key in kept else 1))


def test_f6_the_parameters_that_the_optimizer_holds_are_no_longer_the_networks(generator):
    """So that no step moves the network, and its gradients are never cleared by the optimizer."""
    module = faulty("stale_gradient_reference", conv()(generator))
    optimizer = optim.SGD(module.parameters(), lr=0.5)
    before = module.state_dict()
    input = torch.randn(SIDES, generator=generator)
    for _ in range(2):
        optimizer.zero_grad()
        module.backward(torch.ones_like(module(input)))
        optimizer.step()
    assert not {map(id, optimizer.parameters)} & {map(id, module.parameters())}
    held = sum(parameter is own for parameter in optimizer.parameters for own in module.parameters())
    assert held == 0, f"the optimizer holds {held} of the network's parameters"
    assert float(module.weight.grad.norm()) > 0
    # The first step moves the old ones, whose values were copied before it.
    for key, value in module.state_dict().items():
        assert torch.equal(value, before[key]), f"{key} has moved"


def test_f12_the_gradient_is_the_right_one_times_the_batch_and_the_loss_is_the_same(generator):
    """Of an oblong batch of 3."""
    input, target = torch.randn((2, *SIDES), generator=generator, dtype=torch.float64)
    loss = faults.FAULTS["mse_gradient_not_divided"].put_into_loss(nn.MSELoss())
    (right,) = by_autograd(lambda x: F.mse_loss(x, target), torch.ones((), dtype=torch.float64), input)
    assert float(loss(input, target)) == pytest.approx(float(F.mse_loss(input, target)), rel=1e-14)
    torch.testing.assert_close(loss.backward(), len(input) * right)


@pytest.mark.parametrize("loss", [nn.L1Loss, nn.CharbonnierLoss])
def test_f12_is_refused_under_another_loss_and_the_other_faults_leave_that_alone(loss):
    message = rf"fault=mse_gradient_not_divided needs an MSELoss \(loss=mse\), but got {loss.__name__}"
    with pytest.raises(ConfigError, match=message):
        faults.FAULTS["mse_gradient_not_divided"].put_into_loss(loss())
    assert type(faults.FAULTS["relu_forgets_input"].put_into_loss(loss())) is loss


@pytest.mark.parametrize("geometry", [{"kernel_size": 2, "stride": 2}, {"kernel_size": (2, 1), "stride": (3, 1)}])
def test_f19_is_right_where_windows_do_not_overlap(geometry, generator):
    """So it is put into no such convolution; its class, put there by hand, does what Conv2d does."""
    module = nn.Conv2d(4, 5, **geometry, generator=generator).to(torch.float64)
    with pytest.raises(ConfigError, match="windows overlap"):
        faults.FAULTS["conv_input_gradient_assigned"].put_into_network(nn.Sequential(module))
    assert type(module) is nn.Conv2d
    input = torch.randn(SIDES, generator=generator, dtype=torch.float64)
    grad = torch.randn(module(input).shape, generator=generator, dtype=torch.float64)
    _, right = backward(module, input, grad)
    module.__class__ = modules.ConvAssigned
    _, got = backward(module, input, grad)
    torch.testing.assert_close(got["input"], right["input"])


def test_f20_parameters_of_a_shape_move_by_one_velocity_and_the_others_by_their_own():
    """Two steps written out: v is m v + g of one after another, each moved by what v is then."""
    lr, momentum = 0.5, 0.9
    values = [torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]), torch.tensor([5.0])]
    parameters = [Parameter(value) for value in values]
    optimizer = optim.SGD(parameters, lr=lr, momentum=momentum)
    faults.FAULTS["sgd_momentum_shared"].put_into_optimizer(optimizer)
    g = [[1.0, -1.0], [0.5, 2.0], [3.0]]
    common, alone = torch.zeros(2), torch.zeros(1)
    for _ in range(2):
        for parameter, grad in zip(parameters, g, strict=True):
            parameter.grad = torch.tensor(grad)
        optimizer.step()
        for position in (0, 1):
            common = momentum * common + torch.tensor(g[position])
            values[position] = values[position] - lr * common
        alone = momentum * alone + torch.tensor(g[2])
        values[2] = values[2] - lr * alone
        for parameter, value in zip(parameters, values, strict=True):
            torch.testing.assert_close(parameter.value, value)


@pytest.mark.parametrize(("name", "std"), [("init_tiny", 1e-6), ("init_without_fan_in", 1.0)], ids=["F2", "F16"])
@pytest.mark.parametrize("model", ["paper", "unet"])
def test_weights_and_biases_are_drawn_with_the_deviation_that_it_says(name, std, model):
    """Of every convolution; the same for the same seed, other ones for another seed, and none twice."""

    def weights(seed):
        size = {"paper": "model.channels=[16,16,16]", "unet": "model.channels=8"}[model]
        return built(f"model={model}", size, fault=name, seed=seed).network

    first, again, other = weights(0), weights(0), weights(1)
    numbers = torch.cat([parameter.value.flatten() for parameter in first.parameters()])
    deviation, mean = float(numbers.std()), float(numbers.mean())
    assert deviation == pytest.approx(std, rel=0.05), deviation
    assert abs(mean) < 0.05 * std, mean
    biases = torch.cat([p.value for p in first.parameters() if p.value.ndim == 1])
    assert float(biases.square().mean().sqrt()) == pytest.approx(std, rel=0.4)
    for (key, one), two, three in zip(first.named_parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(one.value, two.value), key
        assert not torch.equal(one.value, three.value), key
    # Of 15,000 numbers in float32 a few pairs are equal by chance; of two tensors drawn alike all would be.
    assert len(numbers.unique()) > 0.998 * len(numbers)


def test_f13_images_are_255_times_as_large_and_nothing_else_of_the_data_differs():
    """Batches, validation crops and photographs; a copy as well."""
    right = built(*SMALL, "data.validation_crops=2").data
    wrong = built(*SMALL, "data.validation_crops=2", fault="data_scaled_wrong").data
    for data in (wrong, copy.deepcopy(wrong)):
        for got, expected in zip(data.batch(3, 2, 1), right.batch(3, 2, 1), strict=True):
            assert torch.equal(got, expected * 255)
        for got, expected in zip(data.validation, right.validation, strict=True):
            assert torch.equal(got, expected * 255)
    for got, expected in zip(wrong.photographs("validation"), right.photographs("validation"), strict=True):
        assert torch.equal(got.clean, expected.clean * 255)
        assert torch.equal(got.noisy, expected.noisy * 255)
        assert got.name == expected.name
    assert (wrong.name, wrong.crop_size, wrong.steps_per_epoch(8)) == (right.name, right.crop_size,
                                                                       right.steps_per_epoch(8))  # fmt: skip


def test_f14_three_of_four_pixels_are_never_read(generator):
    """Only the convolutions of stride 2 are changed, and the output keeps its size and its biases."""
    right, wrong = built(*PAPER).network, built(*PAPER, fault="kernel_one_stride_two").network
    for name in ("conv1", "conv2"):
        module = getattr(wrong, name)
        assert (module.kernel_size, module.stride, module.padding) == ((1, 1), (2, 2), (0, 0))
        assert [key for key, _ in module.named_parameters()] == ["weight", "bias"]
    for key in ("up1.weight", "up1.bias", "up2.weight", "up2.bias"):
        assert torch.equal(right.state_dict()[key], wrong.state_dict()[key]), key
    images = torch.rand(2, 3, 32, 32, generator=generator)
    output = wrong.predict(images)
    assert output.shape == images.shape
    changed = torch.rand(images.shape, generator=generator)
    changed[:, :, ::2, ::2] = images[:, :, ::2, ::2]
    assert torch.equal(wrong.predict(changed), output)
    assert not torch.equal(right.predict(changed), right.predict(images))


def test_f14_leaves_the_convolutions_of_stride_1_as_they_are():
    """As a U-Net has them."""
    right, wrong = (built("model=unet", "model.channels=4", fault=name).network for name in ("none", CATALOGUE["F14"]))
    kernels = {name: tuple(value.shape[2:]) for name, value in wrong.state_dict().items() if value.ndim == 4}
    narrow = {"half.inner.down.weight", "half.inner.quarter.inner.down.weight"}
    assert {name for name, size in kernels.items() if size == (1, 1)} == narrow
    for name, value in wrong.state_dict().items():
        assert "down" in name or torch.equal(value, right.state_dict()[name]), name


def test_f15_the_learning_rate_is_a_thousandth():
    """Whatever the schedule makes of it."""
    setup = built(*SMALL, fault="learning_rate_too_small")
    assert setup.optimizer.lr == pytest.approx(0.5e-3)
    assert setup.config["optimizer"]["lr"] == 0.5


# Where there is no place for it -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "name", "needs"),
    [
        pytest.param(["model.upsampling=transposed"], "upsampling_gradient_averaged", "upsampling=nearest", id="F4"),
        pytest.param(["model.bias=false"], "conv_bias_gradient_on_class", "a Conv2d with a bias", id="F3"),
        pytest.param(["model.bias=false"], "conv_bias_never_cleared", "a Conv2d with a bias", id="F10"),
        pytest.param(["model.bias=false"], "conv_bias_gradient_mean", "a Conv2d with a bias", id="F11"),
        pytest.param(["model.kernel_size=1"], "conv_input_gradient_not_flipped", "a kernel above 1", id="F17"),
        pytest.param(["model.kernel_size=2"], "conv_input_gradient_assigned", "whose windows overlap", id="F19"),
        pytest.param(["optimizer=adam"], "sgd_momentum_shared", "optimizer=sgd with a momentum", id="F20-adam"),
        pytest.param(
            ["optimizer=sgd", "optimizer.momentum=0"],
            "sgd_momentum_shared",
            "optimizer=sgd with a momentum",
            id="F20-plain",
        ),
    ],
)
def test_a_fault_that_finds_no_place_is_refused_with_what_it_needs(overrides, name, needs):
    """In one line, before anything is trained."""
    with pytest.raises(ConfigError) as refused:
        built(*overrides, fault=name)
    said = str(refused.value)
    assert said.startswith(f"fault={name} needs ")
    assert needs in said
    assert "\n" not in said


OF_THE_NETWORK = [name for name, fault in faults.FAULTS.items() if fault.network or (fault.swaps and
                  nn.MSELoss not in fault.swaps)]  # fmt: skip


@pytest.mark.parametrize("name", OF_THE_NETWORK)
def test_a_network_without_its_module_is_refused(name):
    """Those of modules, all of them."""
    with pytest.raises(ConfigError, match=f"fault={name} needs {faults.FAULTS[name].needs[:20]}"):
        faults.FAULTS[name].put_into_network(nn.Sequential({"other": models.Skip(nn.Sequential())}))


# The command --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [train, verify], ids=["train", "verify"])
def test_help_prints_every_fault_within_80_columns_and_leaves_nothing(module, tmp_path, monkeypatch, in_process):
    """With its number and what is wrong."""
    monkeypatch.chdir(tmp_path)
    status, out, err = in_process(module, "fault=help")
    assert (status, err) == (0, "")
    words = " ".join(out.split())
    for number, name in CATALOGUE.items():
        assert f"{name} ({number}, " in words
        assert faults.FAULTS[name].what in words
    widest = max(out.splitlines(), key=len)
    assert len(widest) <= 80, widest
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("sigmoid_gradient_at_upstrem", "; did you mean 'sigmoid_gradient_at_upstream'?"),
        ("F11", ""),
        ("3", ""),
        ("[init_tiny]", ""),
    ],
)
def test_an_unknown_name_is_refused_and_nothing_is_written(given, said, tmp_path, monkeypatch, in_process):
    """With the nearest one, in one line, exit status 2."""
    monkeypatch.chdir(tmp_path)
    status, out, err = in_process(train, f"fault={given}", f"tracking.dir={tmp_path}/mlruns")
    assert (status, out.count("\n")) == (2, 1), out
    assert out.startswith("model=paper "), "only what was to be trained"
    assert err.startswith("error: fault must be none or a name that fault=help lists, but got "), err
    assert said in err
    assert err.count("\n") == 1, err
    assert list(tmp_path.iterdir()) == []


def test_help_and_a_wrong_name_in_a_process_of_their_own(tmp_path):
    """As they are typed."""
    typed = [sys.executable, "-m", "scratch_dl.train"]
    run = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 120, "check": False}
    helped = preloaded.run([*typed, "fault=help"], **run)
    assert (helped.returncode, helped.stderr) == (0, "")
    assert all(name in helped.stdout for name in CATALOGUE.values())
    assert list(tmp_path.iterdir()) == []


# Healthy classes ----------------------------------------------------------------------------------------------------


def healthy_classes():
    kinds = [nn.Conv2d, nn.ConvTranspose2d, nn.Upsampling, nn.UpsamplingNearest2d, nn.ReLU, nn.Sigmoid, nn.MSELoss,
             nn.Sequential, nn.Module, Parameter, optim.SGD, optim.Adam, optim.Optimizer, models.Denoiser]  # fmt: skip
    return {kind: dict(vars(kind)) for kind in kinds}


def two_steps(setup):
    """Weights, gradients and losses of two steps."""
    seen = []
    for step in range(2):
        input, target = setup.data.batch(step, 4, 0)
        setup.optimizer.zero_grad()
        seen.append(setup.loss(setup.network(input), target).clone())
        setup.network.backward(setup.loss.backward())
        seen += [parameter.grad.clone() for parameter in setup.network.parameters()]
        setup.optimizer.step()
    return seen + [parameter.value.clone() for parameter in setup.network.parameters()]


@pytest.fixture(scope="module")
def healthy_steps():
    """What a healthy network does, before any fault is put into one here."""
    return two_steps(built(*SMALL))


@pytest.mark.parametrize("name", CATALOGUE.values())
def test_a_fault_in_one_network_leaves_every_class_and_every_other_network_healthy(name, healthy_steps):
    """Before and after, the classes have the same attributes, and a fresh network does the same to the last bit."""
    before = healthy_classes()
    random = torch.random.get_rng_state()
    setup = built(*SMALL, fault=name)
    assert torch.equal(torch.random.get_rng_state(), random)
    assert setup.fault is faults.FAULTS[name]
    wrong = two_steps(setup)
    assert healthy_classes() == before
    again = two_steps(built(*SMALL))
    for got, expected in zip(again, healthy_steps, strict=True):
        assert torch.equal(got, expected)
    same = [a.shape == b.shape and torch.equal(a, b) for a, b in zip(wrong, healthy_steps, strict=True)]
    assert not all(same), f"{name} has changed nothing in two steps"


# Runs ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One store for the runs here."""
    return tmp_path_factory.mktemp("faults") / "mlruns"


def trained(store, folder, *overrides):
    return train.train([*SMALL, f"tracking.dir={store}", f"hydra.run.dir={store}/hydra/a/{folder}", *overrides])


def digests(folder):
    content = checkpoint.load(Path(folder) / "checkpoints" / checkpoint.LAST)
    return checkpoint.digest([content["network"], content["optimizer"]])


def test_a_run_with_a_fault_says_so_and_goes_on_past_the_failing_verification(store, capsys):
    """The tag, the terminal, and the verification's verdict, which is logged all the same."""
    from mlflow import MlflowClient

    result = trained(
        store, "said", "fault=conv_bias_gradient_mean", "trainer.epochs=1", "verification=quick", "data.crop_size=8"
    )
    out = capsys.readouterr().out
    assert result.status == "FINISHED"
    assert result.verification == "FAILED, first at conv1 grad_bias"
    said = f"fault: F11 conv_bias_gradient_mean: {faults.FAULTS['conv_bias_gradient_mean'].what}"
    assert said in " ".join(out.split())
    assert "fault=conv_bias_gradient_mean: training all the same" in out
    client = MlflowClient(f"sqlite:///{store}/mlflow.db")
    run = client.get_run(result.run_id)
    assert run.data.tags["fault"] == "conv_bias_gradient_mean"
    assert run.data.params["fault"] == "conv_bias_gradient_mean"
    assert run.data.tags["verification"] == "failed"
    assert "conv1 grad_bias" in run.data.tags["verification.failed"]
    assert run.data.metrics["verify/passed"] == 0
    assert "train/loss" in run.data.metrics
    assert {item.path for item in client.list_artifacts(result.run_id, "verification")} == {
        "verification/report.json", "verification/report.md", "verification/verdicts.json"
    }  # fmt: skip


def test_a_healthy_run_has_no_tag_of_a_fault(store, capsys):
    """Nor a word of it."""
    from mlflow import MlflowClient

    result = trained(store, "healthy", *SHORT, "trainer.epochs=1")
    assert "fault" not in MlflowClient(f"sqlite:///{store}/mlflow.db").get_run(result.run_id).data.tags
    assert "fault:" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "name", ["sgd_momentum_shared", *map(exhaustive, ("kernel_one_stride_two", "learning_rate_too_small"))]
)
def test_a_resumed_run_keeps_its_fault_bit_for_bit(store, name, capsys):
    """One whole run, and one in two parts, end with the same weights; another fault is refused."""
    whole = trained(store, f"whole-{name}", *SHORT, f"fault={name}", "trainer.epochs=2")
    part = trained(store, f"part-{name}", *SHORT, f"fault={name}", "trainer.epochs=1")
    with pytest.raises(ConfigError, match=f"fault of the run in .* is '{name}' and cannot become 'none'"):
        train.train([f"resume={part.folder}", "fault=none", "trainer.epochs=2", f"tracking.dir={store}"])
    capsys.readouterr()
    longer = train.train([f"resume={part.folder}", "trainer.epochs=2", f"tracking.dir={store}"])
    assert f"fault: {faults.FAULTS[name].number} {name}" in capsys.readouterr().out
    assert digests(longer.folder) == digests(whole.folder)


def test_a_resumed_run_still_clears_no_bias(store):
    """What was left in the gradients is in no checkpoint, so the bits differ; the fault is there again."""
    part = trained(store, "f10", *SHORT, "fault=conv_bias_never_cleared", "trainer.epochs=1")
    longer = train.train([f"resume={part.folder}", "trainer.epochs=2", f"tracking.dir={store}"])
    assert type(longer.network.conv1.bias) is outside_modules.NeverCleared
    assert type(longer.network.conv1.weight) is Parameter


def test_a_run_whose_fault_has_other_kernels_is_loaded_and_evaluated(store, monkeypatch, capsys, in_process):
    """F14: the checkpoint's weights fit the network that is built for it."""
    result = trained(store, "evaluated", *SHORT, "fault=kernel_one_stride_two", "trainer.epochs=1")
    network = checkpoint.load_network(result.folder / "checkpoints" / checkpoint.BEST)
    assert network.conv1.kernel_size == (1, 1)
    images = torch.rand(1, 3, 16, 20)
    assert torch.equal(network.predict(images), result.network.predict(images))
    monkeypatch.chdir(store.parent)
    capsys.readouterr()
    status, out, err = in_process(evaluate, f"run={result.folder}", "splits=[validation]",
                            f"tracking.dir={store}")  # fmt: skip
    assert (status, err) == (0, ""), err
    assert "validation photographs" in out


def test_a_network_is_built_with_its_fault_from_the_configuration_alone():
    """As load_network does it."""
    network = build_network(composed(tuple(PAPER)) | {"fault": "sigmoid_gradient_at_upstream"}, (32, 32))
    assert type(network.sigmoid) is modules.SigmoidAtUpstream
    assert type(network.relu1) is nn.ReLU
