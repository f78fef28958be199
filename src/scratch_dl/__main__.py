"""`python -m scratch_dl [command] [key=value ...]`, or `scratch-dl`: lists the commands, and runs them."""

import importlib
import sys

from scratch_dl import __version__
from scratch_dl.system.checks import nearest
from scratch_dl.system.errors import USAGE

COMMANDS = {
    "train": "train a network, a grid (-m key=a,b) or a search (-m search=geometry)",
    "verify": "is every module right?",
    "diagnose": "why does a run not converge?",
    "denoise": "denoise pictures of your own with a trained network",
    "evaluate": "score a trained network on whole photographs",
    "compare": "several runs side by side: scores, settings, curves, pictures, verdicts",
    "register": "name a trained network in MLflow's registry; the best one is the champion",
    "bench": "how fast is it beside PyTorch?",
    "runs": "list the trainings, by their last PSNR",
    "delete": "delete runs with all of their files",
    "ui": "look at the runs in MLflow's pages",
}


def main() -> None:
    """Run the command that the first argument names, with the arguments after it; without one, list the commands."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h", "help"):
        print("usage: scratch-dl COMMAND [key=value ...], or python -m scratch_dl COMMAND ...\n")
        for command, purpose in COMMANDS.items():
            print(f"  {command:<9} {purpose}")
        print("\nscratch-dl COMMAND --help lists its settings.")
        return
    if name == "--version":
        print(__version__)
        return
    if name not in COMMANDS:
        hint = nearest(name, COMMANDS) or f"; there are: {', '.join(COMMANDS)}"
        print(f"error: {name!r} is not a command{hint}", file=sys.stderr)
        raise SystemExit(USAGE)
    sys.argv = [f"{sys.argv[0]} {name}", *arguments]
    importlib.import_module(f"scratch_dl.{name}").main()


if __name__ == "__main__":
    main()
