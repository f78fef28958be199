"""From what a user types to a configuration that is checked before anything that it names can run.

arguments.py    overrides in Hydra's grammar: written, read, and expanded from what a user types
environment.py  MLflow's variables, as overrides
yaml_files.py   every YAML file, read with its faults named
composing.py    the configuration as Hydra composes it;  explaining.py  Hydra's errors in the user's words
permission.py   what a configuration may have Hydra run
computing.py    the process's threads and kernels, restored after a call
"""
