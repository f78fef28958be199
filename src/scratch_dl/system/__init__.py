"""What has to do with the operating system and with formats alone.

files.py       files that are whole or not there, and errors that name the path
addresses.py   which addresses and folders an MLflow store may have
output.py      output whose reader may go away
processes.py   a process that ends with its parent
unpickling.py  files of torch.save, read without running code
"""
