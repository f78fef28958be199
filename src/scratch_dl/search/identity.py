"""When two points are the same training, however their settings are written."""

import hashlib
import json

from scratch_dl.config.plain import flat
from scratch_dl.config.schema import Setup
from scratch_dl.nn import Upsampling

BESIDE = ("tracking.", "resume.", "verification.", "diagnosis.", "trainer.pictures")
"""How keys begin that change no bit of a training."""
THREADS = "threads"
"""It changes the rounding alone, and differs between machines and numbers of workers."""
_OF_NO_WEIGHT = ("model.", *BESIDE, THREADS)


def identity(setup: Setup) -> str:
    """A hash of the modules with their geometry in numbers, the initial weights, and all settings but the model's.

    padding=same and the padding that it comes to are the same point.
    """
    digest = hashlib.sha256()
    for name, module in setup.network.named_modules():
        if isinstance(module, Upsampling):
            words = f"{module.mode} {module.scale_factor} {module.kernel_size} {module.geometry}"
        elif any(module.children()):  # those tell of themselves
            words = f"{type(module).__name__} {getattr(module, 'join', '')}"
        else:
            words = repr(module)
        digest.update(f"{name} {words}\n".encode())
    for name, value in setup.network.state_dict().items():
        digest.update(f"{name} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    settings = {key: value for key, value in flat(setup.config).items() if not key.startswith(_OF_NO_WEIGHT)}
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:32]
