"""The settings of a benchmark, which every part gets."""

from dataclasses import dataclass

from torch import Generator


@dataclass(frozen=True)
class BenchSettings:
    """How to measure.

    Attributes:
        rounds: values behind every median.
        seed: of inputs, targets and weights.
        backend: of the hand-written kernels: "auto", "reference" or "native".
        threads: of torch and of the kernels.
        smoke: tiny sizes, to see that it works.
    """

    rounds: int
    seed: int
    backend: str
    threads: int
    smoke: bool

    def generator(self) -> Generator:
        """A new one from the seed, so that no part depends on what ran before it."""
        return Generator().manual_seed(self.seed)

    def few(self, most: int) -> int:
        """The number of rounds for something that takes long: at most `most`."""
        return min(self.rounds, most)
