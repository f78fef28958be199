"""Tables and sentences about the reduced space, and the samplers that search it."""

from geometry_plan import describe
from geometry_samplers import MARKS
from geometry_table import read_table
from geometry_tables import kernels_table

from _study import decibel
from scratch_dl.terminal.text_table import TextTable

DEFAULT, CHANCE = "tpe", "random"
PLACES = (1, 2, 3, 5, 10, 20, 50, 100, 200)


def table_tables(_results):
    rows = read_table()
    order = sorted(rows, key=lambda row: -max(row["psnr_db"]))
    places = [place for place in (*PLACES, len(order)) if place <= len(order)]
    best = TextTable(
        "Places in the reduced space",
        "best PSNR on the validation crops, dB",
        5,
        ("place", "kernel", "padding", "channels", "upsampling", "dB"),
        [
            (f"{place}", *describe(row), row["mode"], decibel(max(row["psnr_db"])))
            for place, row in ((place, order[place - 1]) for place in dict.fromkeys(places))
        ],
    )
    by_kernel = kernels_table(
        [{**row, "value": max(row["psnr_db"])} for row in rows], "reduced space: best PSNR, dB, of how many geometries"
    )
    return [best, by_kernel]


def table_sentences(results):
    minutes = results["training_s"] / 60
    return [f"{results['geometries']} geometries were trained, once each, in {minutes:.0f} minutes of one core."]


def sampler_tables(results):
    searches = next(iter(results.values()))["searches"]
    table = TextTable(
        "Searches of the reduced space",
        f"best PSNR after so many trials, dB: median [quartiles] of {searches} searches; draws per search, mean",
        1,
        ("sampler", *map(str, MARKS), "refused", "repeated"),
        [
            (name, *(_quartiles(found, mark) for mark in MARKS), f"{found['refused']:.0f}", f"{found['repeated']:.0f}")
            for name, found in results.items()
        ],
    )
    return [table]


def sampler_sentences(results):
    """Say after how many trials the default sampler has what chance has after all."""
    own, chance = ([median for _, median, _ in results[name]["quartiles"]] for name in (DEFAULT, CHANCE))
    half, whole = MARKS[-2:]
    reached = next((place for place, value in enumerate(own, 1) if value >= chance[whole - 1]), None)
    sentence = (
        f"The median of {DEFAULT} after {half} trials is {decibel(own[half - 1])} dB, that of {CHANCE} after {whole} "
        f"{decibel(chance[whole - 1])} dB, which {DEFAULT} "
        f"{'does not reach' if reached is None else f'reaches after {reached}'}."
    )
    return [sentence]


def _quartiles(found, mark):
    low, middle, high = map(decibel, found["quartiles"][mark - 1])
    return f"{middle} [{low} {high}]"
