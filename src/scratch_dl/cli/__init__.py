"""What all commands have in common.

command.py  composes the configuration, checks it, and only then starts Hydra
errors.py   prints an error in one line, and exits with a status
"""
