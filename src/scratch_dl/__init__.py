"""Neural networks whose forward and backward passes are written by hand, trained, tracked and proven.

The line of a training, and the package or module of each step:

    what is typed           cli/        one command each: train, verify, diagnose, evaluate, bench, runs, delete, ui
    -> a configuration      config/     composed from conf/, checked before anything is written, built into objects
    -> data                 data/       photographs, noise, and batches as a function of (seed, step)
    -> a network            models.py   put together from nn/, whose sums are computed by kernels/
    -> a training           training/   the loop, with optim.py, schedule.py and evaluation/
    -> a record             tracking/   MLflow, by way of a file that survives a crash

Beside it: verification/ (is every module right?), diagnosis/ (why does it not converge?), faults/ (on purpose),
search/ (Optuna), paper/ (the paper's tables), course/ (its course's interface), benchmarks/ (how fast?), terminal/ and
system/ (what knows no network).
"""

__version__ = "0.1.0"
