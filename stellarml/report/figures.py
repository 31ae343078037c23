"""Which figures the counts allow, each with the caption that a reader without the text needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from stellarml.core.histograms import Counts
from stellarml.report import plot_accuracy, plot_catalogue, plot_run, plot_sky
from stellarml.report.accuracy import Label, Metrics
from stellarml.report.blocks import Picture
from stellarml.report.catalogue_counts import SkyMap
from stellarml.report.plot_style import png

FIGURES = (
    *("figure_1_one_to_one", "figure_2_errors", "residuals", "coverage", "kiel", "colour_magnitude", "sky"),
    *("separations", "training_curves", "cut_flow"),
)
"""Every PNG that a report may hold: those of an earlier run that are not drawn again are removed."""


def accuracy_figures(metrics: Metrics, published_std: Mapping[str, float]) -> dict[str, Picture]:
    """Draw what the test part allows: ``one_to_one``, ``errors``, ``residuals``, ``coverage``; maybe none."""
    if not metrics.scales:
        return {}
    names = ", ".join(metrics.scales)
    return {
        "one_to_one": _picture(
            "figure_1_one_to_one",
            plot_accuracy.one_to_one(metrics),
            "Figure 1. Predicted against spectroscopic values of the test stars. Colour: stars per bin, logarithmic; "
            "dashed: equality; red: running median. MAD is 1.4826 times the median absolute deviation; the numbers are "
            f"of all test stars. {_beyond(metrics, 'one_to_one/{0}')}",
            f"Density of predicted against spectroscopic {names}",
        ),
        "errors": _picture(
            "figure_2_errors",
            plot_accuracy.error_histogram(metrics, published_std),
            "Figure 2. Errors of the test stars, divided by their number and by the width of a bin, so that samples of "
            "different size compare; logarithmic, so that the tails show. Hatched: all stars beyond the axis, in one "
            "bin at either end. Red: a Gaussian as wide as the MAD, so what stands above it is tail; dashed: a "
            "Gaussian with the standard deviation of the paper's test part.",
            f"Histogram of errors in {names}",
        ),
        "residuals": _picture(
            "residuals",
            plot_accuracy.residual_trends(metrics),
            "Residuals (predicted minus spectroscopic) against the spectroscopic value, the colour and the magnitude. "
            "Lines: 16, 50 and 84 % quantiles in bins of at least 12 stars. A slope against the spectroscopic value "
            f"alone is regression to the mean, not a calibration error. {_beyond(metrics, 'density/{0}/{0}')}",
            f"Residual trends of {names}",
        ),
        "coverage": _picture(
            "coverage",
            plot_accuracy.coverage(metrics),
            "Fraction of spectroscopic values inside the published interval, by magnitude and by each label; ticks "
            "are the borders of the bins. Bins of at least 20 stars; bars are binomial standard errors.",
            "Coverage of the intervals",
        ),
    }


def _beyond(metrics: Metrics, histogram: str) -> str:
    """Say how many test stars lie outside the panels that draw `histogram`, a pattern of its name, for each label."""
    missing = {
        name: metrics.counts[f"residual/{name}"].rows - metrics.counts[histogram.format(name)].rows
        for name in metrics.scales
    }
    if not any(missing.values()):
        return "No star lies beyond the panels."
    told = ", ".join(f"{count:,} ({name})" for name, count in missing.items())
    return f"Beyond the panels, and not drawn: {told} stars."


def catalogue_figures(
    catalogue: Mapping[str, Counts],
    matched: Mapping[str, Counts],
    sky: SkyMap | None,
    labels: Sequence[Label],
) -> dict[str, Picture]:
    """Draw what the tables allow: ``kiel``, ``colour_magnitude``, ``sky``, ``separations``; maybe none."""
    found: dict[str, Picture] = {}
    if "kiel" in catalogue and catalogue["kiel"].rows:
        found["kiel"] = _picture(
            "kiel",
            plot_catalogue.kiel(catalogue["kiel"]),
            "Kiel diagram of the labelled stars that pass every selection cut: number of stars, and mean [Fe/H] of "
            "the bins that hold at least three.",
            "Kiel diagram",
        )
    if "cmd" in matched and matched["cmd"].rows:
        found["colour_magnitude"] = _picture(
            "colour_magnitude",
            plot_catalogue.colour_magnitude(matched["cmd"]),
            "Colour-magnitude diagram of the matched stars that pass every selection cut; geometric distances, not "
            "corrected for extinction.",
            "Colour-magnitude diagram",
        )
    if sky is not None and len(sky.pixels):
        medians = " and the median of each label" if sky.medians else ""
        found["sky"] = _picture(
            "sky",
            plot_sky.sky_maps(sky, labels),
            f"Surface density{medians} in HEALPix pixels of order {sky.order} (ICRS, right ascension increases to the "
            "left). Medians are left out where a pixel holds few stars.",
            "Sky maps",
        )
    if "separation" in matched and matched["separation"].rows:
        found["separations"] = _picture(
            "separations",
            plot_catalogue.separations(matched["separation"], matched.get("offsets")),
            "Angular separation of the matched pairs at the epoch of the photometric survey.",
            "Separations of matched pairs",
        )
    return found


def run_figures(
    curves: Sequence[Mapping[str, Any]], cut_flow: Sequence[Mapping[str, Any]]
) -> dict[str, Picture]:
    """Draw ``training_curves`` and ``cut_flow`` where there is something to draw."""
    found: dict[str, Picture] = {}
    drawable = [curve for curve in curves if curve.get("epochs")]
    if drawable:
        found["training_curves"] = _picture(
            "training_curves",
            plot_run.training_curves(drawable),
            "Loss by epoch of every network; each phase has its own loss function and so its own scale.",
            "Training curves",
        )
    if cut_flow:
        found["cut_flow"] = _picture(
            "cut_flow", plot_run.cut_flow(cut_flow), "Rows left after each cut, in order.", "Cut-flow"
        )
    return found


def _picture(name: str, figure: Figure, caption: str, alt: str) -> Picture:
    return Picture(name, png(figure), caption, alt)
