"""Tables and sentences about the reduced space, and the samplers that search it."""

import statistics

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
    searches = len(next(iter(results.values()))["best"])
    lines = []
    for name, found in results.items():
        cells = [_quartiles(found["best"], mark) for mark in MARKS]
        counts = [f"{statistics.mean(found[key]):.0f}" for key in ("refused", "repeated")]
        lines.append((name, *cells, *counts))
    table = TextTable(
        "Searches of the reduced space",
        f"best PSNR after so many trials, dB: median [quartiles] of {searches} searches; draws per search, mean",
        1,
        ("sampler", *map(str, MARKS), "refused", "repeated"),
        lines,
    )
    return [table]


def sampler_sentences(results):
    """Say how the default sampler compares with chance, which has twice as many trials."""
    if not {DEFAULT, CHANCE} <= results.keys():
        return []
    half, whole = MARKS[-2:]
    own, chance = (_median(results[name]["best"], mark) for name, mark in ((DEFAULT, half), (CHANCE, whole)))
    sentence = (
        f"The median of {DEFAULT} after {half} trials is {decibel(own)} dB, that of {CHANCE} after {whole} "
        f"{decibel(chance)} dB: half as many trainings {'suffice' if own >= chance else 'do not suffice'}."
    )
    return [sentence]


def _quartiles(curves, mark):
    values = [curve[mark - 1] for curve in curves if len(curve) >= mark]
    if len(values) < 2:
        return "-"
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{decibel(middle)} [{decibel(low)} {decibel(high)}]"


def _median(curves, mark):
    return statistics.median(curve[min(mark, len(curve)) - 1] for curve in curves)
