"""What a person reads on MLflow's pages, in a real Chromium: `pytest -m browser -n 0`.

The program that makes the screenshots of docs/ trains the networks and opens the pages, here at a small size.
"""

import re

import pytest
import screenshots

import preloaded

pytestmark = pytest.mark.browser
SMALL = ("debug=fast", "threads=1", "trainer.epochs=3", "verification=quick")


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Opens a page by its name and waits for words on it; returns its text. All pictures come into one folder."""
    store = screenshots.fill(tmp_path_factory.mktemp("pages"), SMALL, preloaded.run)
    pictures = tmp_path_factory.mktemp("screenshots")
    runs = screenshots.trained(store)
    with screenshots.served(store) as url, screenshots.browser() as tab:
        addresses = screenshots.addresses(url, runs)

        def opens(name, *words):
            return screenshots.look(tab, addresses[name], words, pictures / f"{name}.png")

        opens.runs, opens.store, opens.tab, opens.addresses, opens.pictures = runs, store, tab, addresses, pictures
        yield opens


def test_the_table_tells_runs_apart_and_shows_results_and_verdicts(opened):
    text = opened("results", "val/psnr_db", "my own layer")
    for name in ("paper fast epochs=3", "unet fast adam epochs=3", "fault=sigmoid_gradient_at_upstream"):
        assert re.search(rf"\n{name}", text), text
    for column in ("val/gain_db", "verification", "diagnosis", "model", "noise", "fault"):
        assert f"\n{column}\n" in text, text
    assert "Sort: val/psnr_db" in text
    assert text.count("\nfailed\n") == 2  # the fault's run, and the layer's, which has finished
    assert "\ngradient_wrong\n" in text
    assert "Gaussian(std=0.098)" in text
    values = [float(value) for value in re.findall(r"\n(1\d\.\d{5,})\n", text)]
    assert len(values) >= 4
    assert values == sorted(values, reverse=True)
    assert "Trainings of hand-written networks" in text


def test_the_charts_show_psnr_with_its_baselines_both_losses_and_pictures(opened):
    screenshots.charts(opened.tab, opened.addresses["curves"], opened.pictures / "curves.png")
    text = opened.tab.inner_text("body")
    assert "val/psnr_db vs baseline/noisy_psnr_db vs baseline/blur_psnr_db" in text
    assert "train/loss vs val/loss" in text
    sections = re.findall(r"\n(\w+)\n ?\((\d+)\)", text)
    assert [name for name, _ in sections][:2] == ["curves", "samples"], sections
    assert len(sections) <= 12, sections


def test_a_runs_page_begins_with_its_result(opened):
    text = opened("run", "FINISHED:")
    metrics = opened.runs["healthy"].data.metrics
    assert f"FINISHED: {metrics['test/psnr_db']:.2f} dB on the test photographs, " in text
    assert "verification: passed" in text
    assert "diagnosis: too_short" in text  # of 30 steps
    assert text.index("Description") < text.index("\nMetrics (")
    # The first of all metrics, of which there are fewer than 110.
    assert re.search(r"Metric\nValue\nModels\nval/psnr_db\n", text), text
    assert int(re.search(r"\nMetrics \((\d+)\)", text)[1]) < 110
    assert "No description" not in text


def test_a_wrong_run_that_has_finished_says_what_is_wrong_with_it(opened):
    text = opened("wrong", "FINISHED:")
    assert "verification: FAILED, first at shift grad_bias" in text
    assert "diagnosis: gradient_wrong: shift grad_bias" in text


def test_the_page_of_a_search_has_its_best_trial(opened):
    text = opened("search", "custom")
    assert "best.optimizer.lr" in text, text
    assert "trials.complete\n: 3" in text, text


def test_three_runs_are_compared_by_psnr_first(opened):
    text = opened("compare", "Comparing 3 Runs", "val/psnr_db")
    for name in ("paper fast epochs=3", "unet fast adam epochs=3", "my own layer"):
        assert name in text
    assert re.search(r"Metrics:\n(.*\n)?val/psnr_db", text), text


def test_the_models_page_says_which_run_each_model_is_from(opened):
    text = opened("models", "Source run")
    for name in ("paper fast epochs=3", "unet fast adam epochs=3", "my own layer"):
        assert name in text
    assert "train.py" in text
