"""The paper's tables and equations, and its modules beside PyTorch's."""
