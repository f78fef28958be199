"""Every choice of every group composes and builds; every bad value is refused by its key, before anything is read."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scratch_dl.config import targets
from scratch_dl.config.build import build
from scratch_dl.config.composing import compose_config
from scratch_dl.config.plain import plain
from scratch_dl.config.yaml_files import CONF
from scratch_dl.system.errors import ConfigError

GROUPS = ("model", "loss", "optimizer", "schedule", "data", "noise", "metrics", "trainer", "tracking", "verification")
CHOICES = [
    f"{path.parent.name}={path.stem}" for path in sorted(Path(CONF).glob("*/*.yaml")) if path.parent.name in GROUPS
]
PRESETS = [
    f"{path.parent.name}={path.stem}"
    for path in sorted(Path(CONF).glob("*/*.yaml"))
    if path.parent.name in ("experiment", "debug")
]
NEEDS = {
    "data=course": ["data.path=course", "noise=recorded"],
    "data=folder": ["data.path=pictures"],
    "noise=recorded": ["data=course", "data.path=course"],
}


def built(*overrides):
    return build(compose_config("train", overrides))


@pytest.fixture
def user_data(tmp_path, monkeypatch):
    """The current folder has data of a user's own, which no one may read: headers of pictures and files of nothing."""
    monkeypatch.chdir(tmp_path)
    for name in ("train_data.pkl", "val_data.pkl"):
        Path("course").mkdir(exist_ok=True)
        Path("course", name).write_bytes(b"no pickle")
    Path("pictures").mkdir()
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (80, 80)).save(name)
        Path("pictures", name).write_bytes(Path(name).read_bytes()[:-50])


@pytest.mark.usefixtures("user_data")
@pytest.mark.parametrize("choice", [*CHOICES, *PRESETS])
def test_every_choice_of_every_group_builds_without_reading_data(choice):
    setup = built(choice, *NEEDS.get(choice, []))
    assert setup.network.output_size(setup.data.crop_size) == setup.data.crop_size
    assert len(setup.optimizer.parameters) == len(setup.network.parameters())


@pytest.mark.parametrize(
    ("choice", "level", "steps"), [("full", "full", 100), ("quick", "quick", 10), ("off", "off", 100)]
)
def test_each_level_of_verification_says_its_name(choice, level, steps):
    """YAML reads a bare off as false; and all of them stop at a failure."""
    made = built(f"verification={choice}").verification
    assert (made.enabled, made.lockstep_steps, made.on_failure, made.oracle) == (level != "off", steps, "stop", True)
    assert built().verification.enabled


def random_states():
    return torch.random.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()  # noqa: NPY002


def test_building_leaves_the_global_random_state_alone():
    before = random_states()
    built("model=unet")
    assert random_states() == before


def test_the_seed_draws_the_weights():
    weights = [built(f"seed={seed}").network.parameters()[0].value for seed in (1, 1, 2)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lr=abc", r"optimizer\.lr must be a finite number >= 0, but got 'abc'"),
        ("optimizer.lr=-1", r"optimizer\.lr must be a finite number >= 0, but got -1"),
        ("optimizer.lr=nan", r"optimizer\.lr must be a finite number"),
        ("optimizer.lr=1e400", r"optimizer\.lr must be a finite number"),
        (
            "optimizer=sgd optimizer.momentum=1.5",
            r"optimizer\.momentum must be a finite number >= 0 and < 1, but got 1\.5",
        ),
        ("trainer.epochs=2.5", r"trainer\.epochs must be an integer >= 1, but got 2\.5"),
        ("trainer.epochs=0", r"trainer\.epochs must be >= 1, but got 0"),
        ("trainer.batch_size=0", r"trainer\.batch_size must be >= 1, but got 0"),
        ("trainer.max_minutes=0", r"trainer\.max_minutes must be a finite number > 0, but got 0"),
        ("model.kernel_size=0", r"model\.kernel_size must be >= 1, but got 0"),
        ("model.padding=-1", r"model\.padding must be >= 0, but got -1"),
        (
            "model.padding=0 model.kernel_size=4",
            r"model: the output must have the input's size 32x32, but the sizes are: input 32x32, .*",
        ),
        ("model.upsampling=nearst", r"model\.upsampling must be one of .*did you mean 'nearest'"),
        ("+model.stride=0", r"model\.stride is not a setting"),
        ("optimizer=sgd +optimizer.momentun=0.5", r"optimizer\.momentun is not a setting; did you mean 'momentum'"),
        ("+trainer.epoch=3", r"trainer\.epoch is not a setting; did you mean 'epochs'"),
        ("+sed=3", r"sed is not a setting; did you mean 'seed'"),
        ("seed=-1", r"seed must be >= 0, but got -1"),
        ("dtype=float16", r"dtype must be one of float32, float64, but got 'float16'"),
        ("device=tpu", r"device must be cpu, cuda, cuda:N or auto, but got 'tpu'"),
        ("threads=0", r"threads must be >= 1, but got 0"),
        ("tracking.detail=all", r"tracking\.detail must be one of full, trial, but got 'all'"),
        ("schedule=ramp_down schedule.share=0", r"schedule\.share must be a finite number > 0"),
        ("data.target=noise2clean", r"data\.target must be one of"),
        (
            "data.crop_size=200",
            r"data\.crop_size must fit into every picture after downsampling, but 200x200 does not fit",
        ),
        (
            "model=sequential model.multiple=1",
            r"model must predict images of any size, but for 150x225 pixels, as 'chel",
        ),
        ("data=folder data.path=/nowhere", r"data\.path must be a folder of images, but '/nowhere' is not a folder"),
        ("data=course data.path=/nowhere noise=recorded", r"data\.path must be a folder with .*No such file"),
        ("data.crop_size=0", r"data\.crop_size must be >= 1"),
        ("noise.std=-0.1", r"noise\.std must be a finite number > 0"),
        ("verification.enabled=fast", r"verification\.enabled must be true or false, but got 'fast'"),
        ("verification.on_failure=ignore", r"verification\.on_failure must be one of stop, warn, but got 'ignore'"),
        ("verification.oracle=1", r"verification\.oracle must be true or false, but got 1"),
        ("verification.float32=no_way", r"verification\.float32 must be true or false, but got 'no_way'"),
        ("verification.geometries=null", r"verification\.geometries must be true or false, but got None"),
        ("verification.lockstep_steps=-1", r"verification\.lockstep_steps must be >= 0, but got -1"),
        ("verification.lockstep_max_s=0", r"verification\.lockstep_max_s must be a finite number > 0, but got 0"),
        ("+verification.enabld=true", r"verification\.enabld is not a setting; did you mean 'enabled'"),
        ("~verification.enabled", r"verification\.enabled must be given, but it is missing"),
    ],
)
def test_a_bad_value_is_refused_by_its_key_and_rule(override, message):
    with pytest.raises(ConfigError, match=message):
        built(*override.split())


@pytest.mark.parametrize("slot", ["model", "loss", "optimizer", "schedule", "data", "noise"])
@pytest.mark.parametrize("target", ["os.mkdir", "builtins.open", "pandas.eval", "scratch_dlx.evil"])
def test_a_target_outside_the_package_is_refused_by_name(slot, target):
    with pytest.raises(
        ConfigError, match=rf"{slot}\._target_ must begin with one of scratch_dl\.[\w., ]+, but got '{target}'"
    ):
        built(f"{slot}._target_={target}")


def test_a_target_reached_through_the_packages_imports_is_refused():
    with pytest.raises(ConfigError, match=r"model\._target_ must name a callable of the package scratch_dl"):
        built("model._target_=scratch_dl.models.torch.zeros")


def test_a_target_in_another_part_of_the_package_is_refused():
    """A checkpoint's configuration must not be able to write a file or to start a training."""
    for target in ("scratch_dl.training.checkpoint.save", "scratch_dl.train.train", "scratch_dl.optim.SGD"):
        with pytest.raises(
            ConfigError, match=r"must begin with one of scratch_dl\.models\., scratch_dl\.nn\., but got"
        ):
            built(f"model._target_={target}")


def test_a_nested_target_is_refused_too():
    with pytest.raises(ConfigError, match=r"model\.extra\[0\]\._target_ must begin with"):
        built("+model.extra=[{_target_: os.getcwd}]")


def test_an_allowed_prefix_lets_a_model_of_ones_own_in(tmp_path, monkeypatch):
    (tmp_path / "my_models.py").write_text(
        "from scratch_dl.models import Denoiser\n"
        "from scratch_dl.nn import Conv2d, Sigmoid\n"
        "def tiny(width, size, generator):\n"
        "    first, last = Conv2d(3, width, 1, generator=generator), Conv2d(width, 3, 1, generator=generator)\n"
        "    return Denoiser({'first': first, 'last': last, 'sigmoid': Sigmoid()}, 1, size)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = plain(compose_config("train", ["allowed_targets=[my_models.]"]))
    setup = build({**config, "model": {"_target_": "my_models.tiny", "width": 5}})
    assert setup.network[0].weight.shape == (5, 3, 1, 1)


MY_LAYERS = """
import random
import numpy as np
import torch
torch.manual_seed(1)

class MyConv:
    def __init__(self, in_channels, out_channels, kernel_size=1, gain=1.0):
        if gain <= 0:
            raise ValueError(f"gain must be > 0, but got {gain}")
        noise = np.random.rand() + random.random()
        self.w = torch.randn(out_channels, in_channels) * gain + noise
        self.dw = torch.zeros_like(self.w)

    def forward(self, x):
        self.x = x
        return torch.einsum("oc,nchw->nohw", self.w, x) + 0 * torch.rand(1)

    def backward(self, g):
        self.dw += torch.einsum("nohw,nchw->oc", g, self.x)
        return torch.einsum("oc,nohw->nchw", self.w, g)

    def param(self):
        return [(self.w, self.dw)]

class Anything(MyConv):
    def __init__(self, *args, **settings):
        super().__init__(*args, **settings)
"""
TWO_CONVS = ["model=sequential", "allowed_targets=[my_layers.]", "~model.modules", ("+model.modules={"
             "one:{_target_:my_layers.MyConv,in_channels:3,out_channels:4},"
             "two:{_target_:scratch_dl.nn.Conv2d,in_channels:4,out_channels:4,kernel_size:1},"
             "three:{_target_:my_layers.MyConv,in_channels:4,out_channels:3}}")]  # fmt: skip


@pytest.fixture
def my_layers(tmp_path, monkeypatch):
    """A user's file, importable until the test ends."""
    import sys

    (tmp_path / "my_layers.py").write_text(MY_LAYERS)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("my_layers", None)


@pytest.mark.parametrize("seed", [0, 7])
def test_the_paper_network_module_by_module_has_the_same_weights(seed):
    one, other = (built(f"model={model}", f"seed={seed}").network for model in ("paper", "sequential"))
    assert list(one.state_dict()) == list(other.state_dict())
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())
    assert repr(one) == repr(other)
    assert one.multiple == other.multiple


@pytest.mark.usefixtures("my_layers")
def test_the_seed_alone_draws_the_weights_of_a_users_module_and_no_global_state_changes():
    """Its file and its class draw from the global states of torch, NumPy and Python, and seed torch's."""
    before = random_states()
    first = built(*TWO_CONVS, "seed=3").network.state_dict()
    assert random_states() == before
    torch.rand(1)
    np.random.rand()  # noqa: NPY002
    random.random()
    again, other = (built(*TWO_CONVS, f"seed={seed}").network.state_dict() for seed in (3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert all(not torch.equal(first[name], other[name]) for name in first)
    own = built(*TWO_CONVS, "seed=3", "+model.modules.one.gain=2", "dtype=float64").network
    assert not torch.equal(own.one.inner.w.float(), first["one.w"])
    assert torch.equal(own.three.inner.w, first["three.w"].double())


@pytest.mark.usefixtures("my_layers")
def test_modules_of_one_shape_are_not_drawn_alike():
    network = built(*TWO_CONVS[:2], "~model.modules", "+model.modules={"
                    "a:{_target_:my_layers.MyConv,in_channels:3,out_channels:3},"
                    "b:{_target_:my_layers.MyConv,in_channels:3,out_channels:3}}").network  # fmt: skip
    assert not torch.equal(network.a.inner.w, network.b.inner.w)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.modules.conv1.kernel_size=0", r"^model\.modules\.conv1\.kernel_size must be >= 1, but got 0"),
        (
            "+model.modules.conv1.kernel_sizee=3",
            r"^model\.modules\.conv1\.kernel_sizee is not a setting; did you mean 'kernel_size'",
        ),
        ("~model.modules.conv1.kernel_size", r"^model\.modules\.conv1\.kernel_size must be given, for example \+model"),
        ("+model.modules.relu1.slope=3", r"^model\.modules\.relu1\.slope is not a setting; .*relu1 takes none"),
        ("+model.modules.conv1.generator=3", r"^model\.modules\.conv1\.generator is not a setting"),
        ("model.modules.conv1._target_=my_layers.MyConv", r"^model\.modules\.conv1\._target_ must begin with one of"),
        ("model.modules.conv1._target_=scratch_dl.nn.Conv3d", r"^model\.modules\.conv1\._target_ must name a callable"),
        ("model.modules.conv1=3", r"^model\.modules\['conv1'\] must have a forward and a backward, but got int"),
        ("model.modules.up2.out_channels=4", r"^model: the output must have 3 channels as the input has, but has 4"),
        ("model.modules.conv2.in_channels=5", r"^model: .*conv2 input must have shape \(n, 5, h, w\), but got \(1, 32"),
        ("model.multiple=0", r"^model\.multiple must be >= 1, but got 0"),
        ("+model.init=he", r"^model\.init is not a setting"),
    ],
)  # fmt: skip
def test_a_bad_setting_of_a_nested_target_is_named_by_its_whole_key(override, message):
    with pytest.raises(ConfigError, match=message):
        built("model=sequential", override)


@pytest.mark.usefixtures("my_layers")
@pytest.mark.parametrize("name", ["MyConv", "Anything"])
def test_a_users_class_refuses_by_its_whole_key_too(name):
    target = ["+model.modules.one.gain=0", f"model.modules.one._target_=my_layers.{name}"]
    with pytest.raises(ConfigError, match=r"^model\.modules\.one\.gain must be > 0, but got 0"):
        built(*TWO_CONVS, *target)


def test_nested_targets_lie_in_lists_and_in_one_another():
    """A U-Net's skip, by configuration: the arguments of `Sequential` are one after another, or by name."""
    conv = "{_target_:scratch_dl.nn.Conv2d,in_channels:3,out_channels:3,kernel_size:3,padding:1}"
    relu = "{_target_:scratch_dl.nn.ReLU}"
    network = built(
        "model=sequential",
        "~model.modules",
        f"+model.modules={{skip:{{_target_:scratch_dl.nn.Skip,join:add,inner:"
        f"{{_target_:scratch_dl.nn.Sequential,modules:[{conv},{relu}]}}}},"
        f"named:{{_target_:scratch_dl.nn.Sequential,modules:{{last:{conv}}}}}}}",
    ).network
    assert list(network.state_dict()) == [
        "skip.inner.0.weight",
        "skip.inner.0.bias",
        "named.last.weight",
        "named.last.bias",
    ]
    with pytest.raises(ConfigError, match=r"^model\.modules\.a\.modules\[1\]\.kernel_size must be >= 1"):
        built("model=sequential", f"+model.modules.a={{_target_:scratch_dl.nn.Sequential,modules:[{relu},"
              f"{conv.replace('kernel_size:3', 'kernel_size:0')}]}}")  # fmt: skip


def test_a_model_whose_output_has_another_size_is_refused_whoever_built_it(tmp_path, monkeypatch):
    (tmp_path / "my_small_models.py").write_text(
        "from scratch_dl.models import Denoiser\n"
        "from scratch_dl.nn import Conv2d\n"
        "def half():\n"
        "    return Denoiser({'conv': Conv2d(3, 3, 2, stride=2, padding=1)}, 1, size=(1, 1))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = plain(compose_config("train", ["allowed_targets=[my_small_models.]"]))
    with pytest.raises(ConfigError, match=r"model: the output must have .*conv 17x17"):
        build({**config, "model": {"_target_": "my_small_models.half"}})


def test_a_gpu_is_asked_for_only_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="device must be cpu here"):
        built("device=cuda")
    assert built("device=auto").device == "cpu"


def test_the_message_of_a_callable_is_prefixed_by_its_key():
    with pytest.raises(ConfigError, match=r"^optimizer\.lr must"), targets.config_errors("optimizer", {"lr": 1}):
        raise ValueError("lr must be")
