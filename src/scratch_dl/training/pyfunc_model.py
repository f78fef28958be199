"""The trained network as an MLflow pyfunc model; MLflow runs this file when it loads the model."""

from typing import Any

import mlflow
import numpy as np
import torch

from scratch_dl.evaluation.scoring import denoise
from scratch_dl.training.checkpoint import load_network


class DenoiserModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Noisy images in, denoised images out: float32 of shape (n, 3, h, w), any h and w.

    Noisy values are about those of an image in [0, 1], and so are denoised ones: nothing is clamped.
    """

    def load_context(self, context: Any) -> None:
        """Build the network from the checkpoint that travels with the model; a model is code, so it is trusted."""
        self.network = load_network(context.artifacts["weights"], allowed_targets=None)

    # A plain np.ndarray: MLflow reads the hint, and warns of one that is missing or finer.
    def predict(self, context: Any, model_input: np.ndarray, params: Any = None) -> Any:  # noqa: ARG002
        """(n, 3, h, w) -> the same."""
        return denoise(self.network, torch.from_numpy(np.array(model_input, dtype=np.float32))).numpy()


mlflow.models.set_model(DenoiserModel())
