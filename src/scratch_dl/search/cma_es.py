"""Optuna's sampler CMA-ES, which keeps its state as a pickle in the study's storage: read without running anything."""

import io
import pickle
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from optuna.samplers import CmaEsSampler

from scratch_dl.system.errors import ConfigError

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

_NAMES = {
    ("cmaes._cma", "CMA"),
    ("cmaes._cmawm", "CMAwM"),
    ("cmaes._sepcma", "SepCMA"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
}
"""All that a state of the sampler's is made of, by module and name."""


class SafeCmaEs(CmaEsSampler):
    """CMA-ES whose state may name nothing but itself and arrays: a storage may be written by others."""

    def _restore_optimizer(self, completed_trials: "Sequence[FrozenTrial]") -> Any:
        for trial in reversed(completed_trials):
            parts = {
                key: value for key, value in trial.system_attrs.items() if key.startswith(self._attr_key_optimizer)
            }
            if parts:
                return _Reader(io.BytesIO(bytes.fromhex(self._concat_optimizer_attrs(parts)))).load()
        return None


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMES:
            raise ConfigError(
                f"hydra.sweeper.storage holds a state of the sampler that asks for {module}.{name}, which is not "
                "part of it; choose another hydra.sweeper.study_name or sampler"
            )
        return super().find_class(module, name)
