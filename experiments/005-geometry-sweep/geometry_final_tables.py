"""Tables and sentences about the finals and the long trainings."""

import statistics

from geometry_plan import SPLITS
from geometry_tables import mean_and_std

from _study import decibel
from scratch_dl.evaluation.baselines import BASELINES
from scratch_dl.evaluation.scoring import PREFIXES
from scratch_dl.terminal.text_table import TextTable

GOAL_DB = 0.05  # own network and twin are to differ by less, in the mean
RIVALS = {"blur": "blur", "tv": "TV", "nlm": "NLM", "bm3d": "BM3D"}
LEVEL_HEADS = ("noisy", *RIVALS.values())


def final_tables(results):
    groups = _by_case(results)
    return [*(_scores_table(results, groups, split) for split in SPLITS), _trainings_table(groups)]


def final_sentences(results):
    groups = _by_case(results)
    sentences = [_comparison(model, rows, results) for (model, noise), rows in groups.items() if noise == "gaussian"]
    differences = {
        case: _mean(rows, "own", "test/psnr_db") - _mean(rows, "twin", "test/psnr_db") for case, rows in groups.items()
    }
    near = sum(abs(difference) <= GOAL_DB for difference in differences.values())
    (model, noise), most = max(differences.items(), key=lambda item: abs(item[1]))
    sentences.append(
        f"The means of own network and twin are within {GOAL_DB} dB in {near} of {len(differences)} cases; most "
        f"apart are those of {model} under {noise}, {most:+.2f} dB."
    )
    return sentences + _bm3d_sentences(results)


def long_tables(results):
    return [
        TextTable(
            f"As long as the course allowed: whole {photographs}",
            "sigma 25, seed 0, one thread; PSNR, dB",
            1,
            ("model", "parameters", "steps", "minutes", *LEVEL_HEADS, "own"),
            [
                (
                    row["model"],
                    f"{row['parameters']:,}",
                    f"{row['steps']:,}",
                    f"{row['own_s'] / 60:.0f}",
                    *map(decibel, _levels([row], results, "gaussian", split).values()),
                    decibel(row["own"][f"{PREFIXES[split]}/psnr_db"]),
                )
                for row in results["rows"]
            ],
        )
        for split, photographs in SPLITS.items()
    ]


def long_sentences(results):
    return [_comparison(row["model"], [row], results) for row in results["rows"]]


def _by_case(results):
    """Return (model, noise) -> its rows, one per seed."""
    groups = {}
    for row in results["rows"]:
        groups.setdefault((row["model"], row["noise"]), []).append(row)
    return groups


def _scores_table(results, groups, split):
    metric, lines = f"{PREFIXES[split]}/psnr_db", []
    for (model, noise), rows in groups.items():
        levels = map(decibel, _levels(rows, results, noise, split).values())
        cells = (mean_and_std([row[network][metric] for row in rows]) for network in ("own", "twin"))
        difference = _mean(rows, "own", metric) - _mean(rows, "twin", metric)
        lines.append((noise, model, *levels, *cells, f"{difference:+.2f}"))
    return TextTable(
        f"Whole {SPLITS[split]}",
        f"PSNR, dB; own and twin: mean±standard deviation over {len(results['seeds'])} seeds",
        2,
        ("noise", "model", *LEVEL_HEADS, "own", "twin", "own - twin"),
        lines,
    )


def _trainings_table(groups):
    lines = []
    for (model, noise), rows in groups.items():
        minutes = (f"{statistics.mean(row[key] for row in rows) / 60:.1f}" for key in ("own_s", "twin_s"))
        steps = (f"{statistics.mean(row[key] for row in rows):,.0f}" for key in ("own_best_step", "twin_best_step"))
        on_crops = (mean_and_std([row[key] for row in rows]) for key in ("own_best_psnr_db", "twin_best_psnr_db"))
        size = (f"{rows[0]['parameters']:,}", f"{rows[0]['steps']:,}")
        lines.append((noise, model, *size, *minutes, *steps, *on_crops))
    return TextTable(
        "The trainings",
        "one thread each; means over the seeds; PSNR on the validation crops, dB",
        2,
        (
            *("noise", "model", "parameters", "steps", "own\nminutes", "twin\nminutes"),
            *("own\nbest step", "twin\nbest step", "own\non crops", "twin\non crops"),
        ),
        lines,
    )


def _levels(rows, results, noise, split):
    """Return method -> its PSNR on the photographs of "test" or "validation"; None for BM3D without the package."""
    bm3d = results["bm3d"][f"{noise} {split}"]
    levels = {name: rows[0]["own"][f"{PREFIXES[split]}/{name}_psnr_db"] for name in BASELINES}
    return levels | {"bm3d": bm3d and bm3d["psnr_db"]}


def _comparison(model, rows, results):
    """Say how far the mean of the rows is from every other method, on the test photographs with Gaussian noise."""
    own, levels = _mean(rows, "own", "test/psnr_db"), _levels(rows, results, "gaussian", "test")
    leads = {label: own - levels[name] for name, label in RIVALS.items() if levels[name] is not None}
    parts = [f"{abs(lead):.2f} dB {'above' if lead > 0 else 'below'} {label}" for label, lead in leads.items()]
    return f"Gaussian noise, whole test photographs, {rows[0]['steps']:,} steps: {model} is {', '.join(parts)}."


def _bm3d_sentences(results):
    scores = results["bm3d"]
    if any(score is None for score in scores.values()):
        missing = (
            'BM3D is left out, not being installed: `pip install "scratch_dl[bm3d]"`, under a non-commercial licence.'
        )
        return [missing]
    pixelated = [score for case, score in scores.items() if case.startswith("pixelation")]
    sigmas = [255 * sigma for score in pixelated for sigma in score["sigma"]]
    if not sigmas:
        return []
    sentence = (
        f"BM3D (version {results['bm3d_version']}) is given the true deviation of the Gaussian noise, TV and "
        "non-local means estimate it. Pixelation has none: all three take scikit-image's estimate, "
        f"{min(sigmas):.1f} to {max(sigmas):.1f} / 255."
    )
    return [sentence]


def _mean(rows, network, metric):
    return statistics.mean(row[network][metric] for row in rows)
