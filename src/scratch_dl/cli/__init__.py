"""What every command does first and last.

command.py  composes the configuration, checks it, and only then lets Hydra begin;  errors.py  one line, and a status
"""
