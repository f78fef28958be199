"""The course's interface over `scratch_dl.nn`: live pairs, SGD on them, a student's own modules."""

import copy

import pytest
import torch

from scratch_dl import nn, optim
from scratch_dl.course import (
    MSE,
    SGD,
    Conv2d,
    Model,
    NearestUpsampling,
    ReLU,
    Sequential,
    Sigmoid,
    TransposeConv2d,
    Upsampling,
)

MODULES = [
    pytest.param(lambda: Conv2d(2, 3, (2, 3), stride=2, padding=1, dilation=(1, 2)), 2, id="Conv2d"),
    pytest.param(lambda: TransposeConv2d(2, 3, 4, 2, 1, bias=False), 1, id="TransposeConv2d"),
    pytest.param(lambda: Upsampling(2, 3, 3), 2, id="Upsampling-nearest"),
    pytest.param(lambda: Upsampling(2, 3, 4, mode="transposed"), 2, id="Upsampling-transposed"),
    pytest.param(lambda: NearestUpsampling(2), 0, id="NearestUpsampling"),
    pytest.param(ReLU, 0, id="ReLU"),
    pytest.param(Sigmoid, 0, id="Sigmoid"),
]


@pytest.mark.parametrize(("make", "parameters"), MODULES)
def test_forward_backward_and_pairs_are_those_of_the_module_behind(make, parameters, generator):
    module = make()
    plain = copy.deepcopy(module.module)
    x = torch.randn(2, 2, 5, 6, generator=generator)
    output = module.forward(x)
    upstream = torch.randn(output.shape, generator=generator)
    assert torch.equal(output, plain(x))
    assert torch.equal(module.backward(upstream), plain.backward(upstream))
    pairs = module.param()
    assert len(pairs) == parameters
    for (value, grad), parameter in zip(pairs, plain.parameters(), strict=True):
        assert torch.equal(value, parameter.value)
        assert torch.equal(grad, parameter.grad)
        assert grad.abs().sum() > 0
    module.zero_grad()
    assert not any(grad.any() for _, grad in pairs)


def test_pairs_stay_those_of_the_module_whatever_is_done(generator):
    """Code that holds them, such as an optimizer of one's own, would otherwise train something else."""
    conv = Conv2d(2, 3, 3)
    (weight, weight_grad), (bias, _) = conv.param()
    x = torch.randn(1, 2, 5, 5, generator=generator)
    conv.backward(torch.ones_like(conv.forward(x)))
    conv.weight, conv.bias = torch.ones(3, 2, 3, 3), torch.zeros(3)
    conv.zero_grad()
    conv.backward(torch.ones_like(conv.forward(x)))
    assert conv.weight is weight
    assert conv.bias is bias
    assert torch.equal(weight, torch.ones(3, 2, 3, 3))
    assert torch.allclose(weight_grad[0, 0, 0, 0], x[0, 0, :3, :3].sum())


def test_the_pairs_of_a_model_are_those_that_it_loads_into_and_trains(generator):
    model = Model()
    pairs = model.network.param()
    model.load_pretrained_model()
    loaded = [value.clone() for value, _ in pairs]
    model.train(*torch.rand(2, 4, 3, 8, 8, generator=generator).mul(255), num_epochs=1)
    assert all(value is now for (value, _), (now, _) in zip(pairs, model.network.param(), strict=True))
    assert not any(torch.equal(value, before) for (value, _), before in zip(pairs, loaded, strict=True))


def test_sgd_does_what_that_of_the_package_does(generator):
    options = {"lr": 0.3, "momentum": 0.9, "weight_decay": 0.01, "nesterov": True}
    network = Sequential(Conv2d(2, 4, 3), ReLU(), TransposeConv2d(4, 2, 3), Sigmoid())
    plain = copy.deepcopy(network.module)
    x, target = torch.rand(2, 3, 2, 6, 6, generator=generator)
    ours, theirs = SGD(network.param(), **options), optim.SGD(plain.parameters(), **options)
    loss, plain_loss = MSE(), nn.MSELoss()
    for _ in range(3):
        ours.zero_grad()
        theirs.zero_grad()
        assert float(loss.forward(network.forward(x), target)) == float(plain_loss(plain(x), target))
        network.backward(loss.backward())
        plain.backward(plain_loss.backward())
        ours.step()
        theirs.step()
    for (value, _), parameter in zip(network.param(), plain.parameters(), strict=True):
        assert torch.equal(value, parameter.value)


class Scale:
    """A student's own module, in the course's convention."""

    def __init__(self):
        self.w, self.dw = torch.tensor([2.0]), torch.zeros(1)

    def forward(self, *input):
        self.x = input[0]
        return self.w * self.x

    def backward(self, *gradwrtoutput):
        self.dw += (gradwrtoutput[0] * self.x).sum()
        return self.w * gradwrtoutput[0]

    def param(self):
        return [(self.w, self.dw)]


def test_a_module_of_ones_own_is_trained_along(generator):
    network = Sequential(Sequential(Conv2d(1, 1, 1), Scale()), ReLU())
    before = [value.clone() for value, _ in network.param()]
    optimizer = SGD(network.param(), lr=0.1)
    network.backward(torch.ones_like(network.forward(torch.rand(2, 1, 4, 4, generator=generator) + 9)))
    optimizer.step()
    assert len(before) == 3
    values = [value for value, _ in network.param()]
    changed = [not torch.equal(value, old) for value, old in zip(values, before, strict=True)]
    assert changed == [bool(grad.any()) for _, grad in network.param()]


REFUSED = [
    pytest.param(lambda: Conv2d(3, 8, 0), ValueError, "kernel_size must be >= 1, but got 0", id="kernel"),
    pytest.param(lambda: Sequential(ReLU(), 3), TypeError, r"modules\['1'\] must have a forward", id="no-module"),
    pytest.param(lambda: SGD([torch.ones(2)], 0.1), TypeError, "params must be .* pairs, but .* Tensor", id="no-pair"),
    pytest.param(lambda: SGD([(torch.ones(2), torch.ones(3))], 0.1), ValueError,
                 r"must have the parameter's shape \(2,\), but got \(3,\)", id="unlike-pair"),
    pytest.param(lambda: setattr(Conv2d(1, 1, 2), "weight", torch.ones(2)), ValueError,
                 r"weight must have shape \(1, 1, 2, 2\), but got \(2,\)", id="weight"),
    pytest.param(lambda: setattr(Conv2d(1, 1, 2, bias=False), "bias", torch.ones(1)), ValueError,
                 "bias cannot be assigned", id="no-bias"),
    pytest.param(lambda: Model().predict(torch.zeros(3, 8, 8)), ValueError, r"\(n, 3, h, w\).* \(3, 8, 8\)", id="3d"),
    pytest.param(lambda: Model().predict(torch.zeros(0, 3, 8, 8)), ValueError, "at least one picture", id="none"),
    pytest.param(lambda: Model().predict([1]), TypeError, "test_input must be a tensor .* got list", id="list"),
    pytest.param(lambda: Model().train(torch.zeros(1, 3, 8, 8), torch.zeros(2, 3, 8, 8), 1), ValueError,
                 "train_target must have train_input's shape", id="unlike"),
    pytest.param(lambda: Model().train(*torch.zeros(2, 1, 3, 8, 8), 0), ValueError, "num_epochs must be >= 1", id="0"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_what_cannot_be_used_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64, torch.int64])
def test_a_picture_of_any_size_and_kind_of_number_is_predicted(dtype, generator):
    images = torch.randint(256, (3, 3, 33, 18), generator=generator)
    model = Model()
    model.load_pretrained_model()
    output = model.predict(images.to(dtype))
    assert output.dtype == torch.float32
    assert torch.equal(output, model.predict(images.to(torch.float32)))
    assert float((output - images).abs().mean()) > 1


def test_the_same_seed_trains_the_same_weights(generator):
    pairs = torch.rand(2, 5, 3, 8, 8, generator=generator).mul(255)
    trained = []
    for seed in (1, 1, 2):
        model = Model(seed=seed, batch_size=2)
        model.train(*pairs, num_epochs=2)
        trained.append(model.predict(pairs[0]))
    assert torch.equal(trained[0], trained[1])
    assert not torch.equal(trained[0], trained[2])
