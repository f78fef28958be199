"""The table of a reduced space: each geometry that fits is trained once, at a trial's length."""

import csv
import io
import itertools
from pathlib import Path

from geometry_plan import RECIPE, STUDY, TABLE_CHANNELS, TABLE_KERNELS, geometry_of, geometry_overrides

from _trainings import Point, train_all
from scratch_dl.models import paper
from scratch_dl.system.files import write_atomically

FILE = Path(__file__).parent / "geometries.csv"
_COLUMNS = ("kernel", "mode", "padding", "channels", "seconds")


def train_table(options, directory):
    """Train every geometry of the reduced space, and write the file; return their number and the time of one core."""
    geometries = list(table_geometries())
    length, short = (), ("verification=off", "diagnosis=off")
    if options.smoke:
        geometries = geometries[:2]
        length = ("data.crops_per_epoch=16", "trainer.epochs=1", "data.validation_crops=8", "data.downsample=4")
    points = {
        name_of(geometry): Point(
            name_of(geometry),
            ("search=geometry", "hydra.mode=RUN", *RECIPE, *geometry_overrides(geometry), *length, *short),
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


def table_geometries():
    """Yield each geometry of the reduced space whose output has the input's size, under one name."""
    known = set()
    for kernel, mode, *padding in itertools.product(
        TABLE_KERNELS, ("nearest", "transposed"), *(("same", 0, 1, 2) for _ in range(4))
    ):
        params = {f"model.padding.{place}": value for place, value in enumerate(padding)}
        params |= {"model.kernel_size": kernel, "model.upsampling": mode}
        for channels in itertools.product(*TABLE_CHANNELS):
            geometry = geometry_of(params | {f"model.channels.{place}": n for place, n in enumerate(channels)})
            if (name := name_of(geometry)) not in known and fits(geometry):
                known.add(name)
                yield geometry


def fits(geometry):
    """Return whether the model accepts a geometry."""
    kernel = geometry["kernel"]
    sizes = [int(word) for word in kernel.strip("[]").split(",")]
    try:
        paper([1, 1, 1], sizes if len(sizes) > 1 else sizes[0], geometry["padding"], geometry["mode"], True, "pytorch")
    except ValueError:
        return False
    return True


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
