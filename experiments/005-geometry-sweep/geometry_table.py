"""The table of a reduced space: each geometry that fits is trained once, at a trial's length."""

import csv
import io
from pathlib import Path

from geometry_plan import RECIPE, STUDY, TABLE_SPACE, geometry_of, geometry_overrides

from _trainings import Point, train_all
from scratch_dl.config.composing import compose_config
from scratch_dl.search.settings import read_settings
from scratch_dl.search.space import read_space
from scratch_dl.search.study import Study
from scratch_dl.system.files import write_atomically

SEARCH = "search=geometry"
FILE = Path(__file__).parent / "geometries.csv"
_COLUMNS = ("kernel", "mode", "padding", "channels", "seconds")


def train_table(options, directory):
    """Train every geometry of the reduced space, and write the file; return their number and the time of one core."""
    geometries = _geometries()
    length, short = (), ("verification=off", "diagnosis=off")
    if options.smoke:
        geometries = geometries[:2]
        length = ("data.crops_per_epoch=16", "trainer.epochs=1", "data.validation_crops=8", "data.downsample=4")
    points = {
        name_of(geometry): Point(
            name_of(geometry),
            (SEARCH, "hydra.mode=RUN", *RECIPE, *geometry_overrides(geometry), *length, *short),
        )
        for geometry in geometries
    }
    trainings = train_all(f"{STUDY}-table", points.values(), options.workers, directory)
    rows = []
    for geometry in geometries:
        training = trainings[name_of(geometry)]
        if training.status != "FINISHED":
            raise SystemExit(f"{training.name} ended as {training.status}: {training.reason}")
        psnr_db = [round(value, 4) for step, value in training.history["val/psnr_db"] if step]
        rows.append({**geometry, "seconds": training.seconds, "psnr_db": psnr_db})
    if not options.smoke:
        _write(rows)
    return {"geometries": len(rows), "training_s": round(sum(row["seconds"] for row in rows))}


def read_table():
    """Return the rows of the file: a geometry with its PSNR on the validation crops after each epoch, dB."""
    with FILE.open(encoding="utf-8", newline="") as stream:
        return [
            {
                "kernel": row["kernel"],
                "mode": row["mode"],
                "padding": [word if word == "same" else int(word) for word in row["padding"].split()],
                "channels": [int(word) for word in row["channels"].split("-")],
                "seconds": float(row["seconds"]),
                "psnr_db": [float(row[column]) for column in row if column.startswith("epoch")],
            }
            for row in csv.DictReader(stream)
        ]


def table_search(paddings=()):
    """Return the settings of the search of the reduced space, the space, and what returns a configuration's setting.

    Args:
        paddings: overrides that draw each padding alone.
    """
    config = compose_config("train", [SEARCH])
    sweeper = config.hydra.sweeper
    space = read_space(sweeper.params, sweeper.conditions, [SEARCH, *TABLE_SPACE, *paddings])
    settings = read_settings(config.hydra, ".")
    base = compose_config("train", [SEARCH, *space.fixed])
    return settings, space, Study(settings, space, Path(), base, compose_config).setting


def _geometries():
    """Return each geometry of the reduced space."""
    _, space, setting = table_search()
    keys = {parameter.name: parameter.key for parameter in space.parameters}
    return [geometry_of({keys[name]: value for name, value in point.items()}) for point in space.grid(setting)]


def name_of(geometry):
    """Return the name of a geometry's training."""
    kernel = geometry["kernel"].strip("[]").replace(",", "")
    padding = "".join(str(value)[0] for value in geometry["padding"])
    return f"k{kernel}-{geometry['mode']}-p{padding}-c{'-'.join(map(str, geometry['channels']))}"


def _write(rows):
    epochs = [f"epoch {number}" for number in range(1, len(rows[0]["psnr_db"]) + 1)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_COLUMNS, *epochs])
    for row in rows:
        padding, channels = " ".join(map(str, row["padding"])), "-".join(map(str, row["channels"]))
        writer.writerow([row["kernel"], row["mode"], padding, channels, row["seconds"], *row["psnr_db"]])
    write_atomically(FILE, text.getvalue().encode())
