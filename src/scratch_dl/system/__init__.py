"""What depends only on the operating system and on formats; it knows no network and no run.

files.py       writes a file completely or not at all, and names the path in errors
addresses.py   which addresses and folders an MLflow store may have
passwords.py   hides or removes passwords in addresses
output.py      printing although the reader of the output has gone
processes.py   a process that ends with its parent
provenance.py  machine, versions, commit and command of a run;  seeding.py  random states
unpickling.py  reads files of torch.save without running code
memory.py      keeps freed memory;  timing.py  times functions in turn
checks.py      checks arguments;  errors.py  errors of settings, and exit statuses
"""
