"""The trained network as an MLflow pyfunc model; MLflow runs this file when it loads the model."""

from typing import Any

import mlflow
import numpy as np
import torch

from scratch_dl.evaluation.scoring import denoise
from scratch_dl.training.checkpoint import load_network


class DenoiserModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Takes noisy images and returns denoised ones: float32 of shape (n, 3, h, w), with any h and w.

    Values are roughly in [0, 1], but neither input nor output is clamped.
    """

    def load_context(self, context: Any) -> None:
        """Build the network from the checkpoint in the model; a model is code, so it is trusted."""
        self.network = load_network(context.artifacts["weights"], allowed_targets=None)

    # A plain np.ndarray: MLflow reads the type hint, and warns if it is missing or more precise.
    def predict(self, context: Any, model_input: np.ndarray, params: Any = None) -> Any:  # noqa: ARG002
        """Return the denoised images, (n, 3, h, w) -> (n, 3, h, w)."""
        return denoise(self.network, torch.from_numpy(np.array(model_input, dtype=np.float32))).numpy()


mlflow.models.set_model(DenoiserModel())
