"""The trained network as an MLflow pyfunc model; MLflow runs this file when it loads the model."""

from typing import Any

import mlflow
import numpy as np
import torch
from numpy.typing import NDArray

from scratch_dl.checkpoint import load_network
from scratch_dl.evaluation import denoise


class DenoiserModel(mlflow.pyfunc.PythonModel):
    """Noisy images in, denoised images out: float32 of shape (n, 3, h, w), any h and w, values in [0, 1]."""

    def load_context(self, context: Any) -> None:
        """Build the network from the checkpoint that travels with the model."""
        self.network = load_network(context.artifacts["weights"])

    def predict(self, context: Any, model_input: NDArray[np.float32], params: Any = None) -> NDArray[np.float32]:  # noqa: ARG002
        """(n, 3, h, w) -> the same."""
        noisy = torch.from_numpy(np.array(model_input, dtype=np.float32))
        output: NDArray[np.float32] = denoise(self.network, noisy).numpy()
        return output


mlflow.models.set_model(DenoiserModel())
