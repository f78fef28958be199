"""Several runs side by side: which runs, what differs between them, and what came of it; the command is `compare`."""
