"""The paper's tables, equations and timings, reproduced against PyTorch."""
