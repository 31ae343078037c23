"""Figures: drawn from counts, with every label inside the picture, the field's conventions, and no global state."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import healpy
import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle, StepPatch
from PIL import Image

from stellarml.core.histograms import Counts, Histogram, fill, linear_axis
from stellarml.core.names import G_MAG
from stellarml.report import plot_accuracy as plots_accuracy
from stellarml.report import plot_catalogue as plots_catalogue
from stellarml.report import plot_run as plots_run
from stellarml.report import plot_sky as plots_sky
from stellarml.report.accuracy import COLOUR, Label, Metrics, Scale, _histograms, _metrics
from stellarml.report.catalogue_counts import SkyMap, flag_fractions
from stellarml.report.figures import accuracy_figures, catalogue_figures, run_figures
from stellarml.report.plot_style import axis_label, coarsen, occupied_limits, plain, png, symbol

LABELS = (Label("teff", "K"), Label("logg", "dex"), Label("a$b_c", "x"))
WIDTHS = {"teff": 80.0, "logg": 0.1, "a$b_c": 3.0}
RANGES = {
    "teff": (3500.0, 7500.0),
    "logg": (0.0, 5.0),
    "a$b_c": (-40.0, 90.0),
    COLOUR: (0.2, 2.5),
    G_MAG: (9.0, 18.0),
}


def metrics_of(stars: int, labels: tuple[Label, ...] = LABELS) -> Metrics:
    rng = np.random.default_rng(0)
    columns = {name: rng.uniform(*RANGES[name], stars) for name in (COLOUR, G_MAG)}
    counts: dict[str, Counts] = {}
    scales = {}
    for label in labels:
        true = rng.uniform(*RANGES[label.name], stars)
        residual = rng.standard_t(3, stars) * WIDTHS[label.name]
        scales[label.name] = Scale(0.0, WIDTHS[label.name], *RANGES[label.name])
        columns |= {
            label.name: true,
            f"predicted_{label.name}": true + residual,
            f"residual_{label.name}": residual,
            f"inside_{label.name}": (np.abs(residual) < 1.1 * WIDTHS[label.name]).astype(float),
            f"half_width_{label.name}": np.full(stars, 1.1 * WIDTHS[label.name]),
        }
    for label in labels:
        for histogram in _histograms(label, scales, RANGES):
            counts[histogram.name] = fill(histogram, columns)
    return _metrics(labels, 68, stars, scales, RANGES, counts)


def kiel_counts(stars: int, value: bool = True) -> Counts:
    rng = np.random.default_rng(1)
    columns = {
        "teff": rng.normal(5200, 400, stars),
        "logg": rng.normal(3, 0.7, stars),
        "feh": rng.normal(-0.5, 0.3, stars),
    }
    axes = (linear_axis("teff", 2500, 9000, 325), linear_axis("logg", -1, 6, 280))
    return fill(Histogram("kiel", axes, value="feh" if value else None), columns)


def sky(order: int, ra: np.ndarray, dec: np.ndarray) -> SkyMap:
    pixel = healpy.ang2pix(2**order, ra, dec, nest=True, lonlat=True)
    pixels, stars = np.unique(pixel, return_counts=True)
    return SkyMap(order, pixels, stars * 20, {"teff": 5000.0 + pixels % 100})


def three_fields() -> SkyMap:
    rng = np.random.default_rng(4)
    ra = np.concatenate([rng.uniform(-1, 1, 900) % 360, rng.uniform(99, 101, 600), rng.uniform(0, 360, 300)])
    dec = np.concatenate([rng.uniform(-41, -39, 900), rng.uniform(-21, -19, 600), rng.uniform(-90, -89, 300)])
    return sky(8, ra, dec)


def patch_sky(ra_deg: float, dec_deg: float) -> SkyMap:
    rng = np.random.default_rng(3)
    ra = (ra_deg + rng.uniform(-3, 3, 4000) / np.cos(np.radians(dec_deg))) % 360
    return sky(7, ra, np.clip(dec_deg + rng.uniform(-3, 3, 4000), -90, 90))


def south() -> SkyMap:
    rng = np.random.default_rng(4)
    return sky(5, rng.uniform(0, 360, 9000), np.degrees(np.arcsin(rng.uniform(-1, 0.1, 9000))))


def separation_counts() -> tuple[Counts, Counts]:
    rng = np.random.default_rng(2)
    x, y = rng.normal(0, 70, (2, 5000))
    columns = {"d": np.hypot(x, y) / 1000, "x": x, "y": y}
    axes = (linear_axis("x", -1000, 1000, 250), linear_axis("y", -1000, 1000, 250))
    return fill(Histogram("s", (linear_axis("d", 0, 10, 2000),)), columns), fill(
        Histogram("o", axes), columns
    )


CURVES: list[dict[str, Any]] = [
    {
        "label": name,
        "unit": "K",
        "epochs": list(range(1, 13)),
        "loss": [3 / (i + 1) for i in range(12)],
        "val_loss": [None, *(3.3 / (i + 1) for i in range(1, 12))],
        "phase": ["mae"] * (8 if name == "teff" else 12) + ["smape"] * (4 if name == "teff" else 0),
    }
    for name in ("teff", "logg")
]
CUT_FLOW = [
    {"survey": survey, "cut": cut, "rows_left": left}
    for survey, steps in {
        "gaia_dr3": [("all rows", 1234), ("a_rather_long_name_of_a_cut", 900)],
        "empty": [("all rows", 0)],
    }.items()
    for cut, left in steps
]

DRAWINGS = {
    "one_to_one": lambda: plots_accuracy.one_to_one(metrics_of(3000)),
    "one_to_one_of_few": lambda: plots_accuracy.one_to_one(metrics_of(3)),
    "errors": lambda: plots_accuracy.error_histogram(metrics_of(3000), {"teff": 85.0}),
    "residuals": lambda: plots_accuracy.residual_trends(metrics_of(3000)),
    "residuals_of_one_label": lambda: plots_accuracy.residual_trends(metrics_of(50, LABELS[:1])),
    "coverage": lambda: plots_accuracy.coverage(metrics_of(3000)),
    "coverage_of_few": lambda: plots_accuracy.coverage(metrics_of(3)),
    "kiel": lambda: plots_catalogue.kiel(kiel_counts(20_000)),
    "kiel_without_metallicity": lambda: plots_catalogue.kiel(kiel_counts(50, value=False)),
    "kiel_of_one_star": lambda: plots_catalogue.kiel(kiel_counts(1)),
    "colour_magnitude": lambda: plots_catalogue.colour_magnitude(kiel_counts(5000)),
    "separations": lambda: plots_catalogue.separations(*separation_counts()),
    "separations_alone": lambda: plots_catalogue.separations(separation_counts()[0], None),
    "sky_south": lambda: plots_sky.sky_maps(south(), LABELS),
    "sky_patch": lambda: plots_sky.sky_maps(patch_sky(0.5, -35.0), LABELS[:1]),
    "sky_pole": lambda: plots_sky.sky_maps(patch_sky(10.0, -88.0), LABELS[:1]),
    "sky_fields": lambda: plots_sky.sky_maps(three_fields(), LABELS[:1]),
    "sky_of_one_pixel": lambda: plots_sky.sky_maps(sky(6, np.array([10.0]), np.array([5.0])), LABELS[:1]),
    "curves": lambda: plots_run.training_curves(CURVES),
    "cut_flow": lambda: plots_run.cut_flow(CUT_FLOW),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DRAWINGS)
def test_nothing_is_cut_off_at_the_border(name: str) -> None:
    before = dict(mpl.rcParams)
    figure: Figure = DRAWINGS[name]()
    with Image.open(io.BytesIO(png(figure))) as picture:
        ink = np.asarray(picture.convert("L")) < 250
    assert ink.mean() > 0.005
    border = np.concatenate([ink[:2].ravel(), ink[-2:].ravel(), ink[:, :2].ravel(), ink[:, -2:].ravel()])
    assert not border.any()
    assert dict(mpl.rcParams) == before


def test_the_same_counts_give_the_same_bytes() -> None:
    assert png(plots_catalogue.kiel(kiel_counts(500))) == png(plots_catalogue.kiel(kiel_counts(500)))


def test_kiel_and_colour_magnitude_axes_run_as_astronomers_draw_them() -> None:
    for axes in plots_catalogue.kiel(kiel_counts(500)).axes[:2]:
        assert axes.xaxis_inverted() and axes.yaxis_inverted()
        assert axes.get_xlabel() == r"$T_\mathrm{eff}$ [K]"
        assert axes.get_ylabel() == r"$\log\,g$ [dex]"
    diagram = plots_catalogue.colour_magnitude(kiel_counts(500)).axes[0]
    assert diagram.yaxis_inverted() and not diagram.xaxis_inverted()


def test_right_ascension_increases_to_the_left() -> None:
    axes = plots_sky.sky_maps(patch_sky(0.5, -35.0), []).axes[0]
    left, right = axes.get_xlim()
    assert left > right
    assert left == pytest.approx(0.5 + 3 / np.cos(np.radians(35)), abs=1.0)


@pytest.mark.parametrize(
    ("ra", "dec"), [(0.4, 0.9), (100.0, 40.0), (250.0, -65.0), (170.0, 85.0), (181.0, -5.0)]
)
def test_a_star_appears_where_the_mollweide_projection_puts_it(ra: float, dec: float) -> None:
    order = 4
    pixel = int(healpy.ang2pix(2**order, ra, dec, nest=True, lonlat=True))
    lookup = plots_sky._lookup(order)
    rows, columns = lookup.shape
    longitude = -((ra + 180) % 360 - 180)
    # Independent of the code under test: bisection on 2 theta + sin 2 theta = pi sin(dec).
    lo, hi = -np.pi / 2, np.pi / 2
    for _ in range(80):
        theta = (lo + hi) / 2
        lo, hi = (
            (theta, hi) if 2 * theta + np.sin(2 * theta) < np.pi * np.sin(np.radians(dec)) else (lo, theta)
        )
    x, y = 2 / np.pi * np.radians(longitude) * np.cos(theta), np.sin(theta)
    assert lookup[int((y + 1) / 2 * rows), int((x + 2) / 4 * columns)] == pixel
    got = plots_sky._project(np.radians([longitude]), np.radians([dec]))
    assert np.ravel(got) == pytest.approx([x, y], abs=1e-6)


def test_the_lookup_is_blank_outside_the_ellipse_only() -> None:
    lookup = plots_sky._lookup(3)
    blank = lookup == 12 * 4**3
    assert blank.mean() == pytest.approx(1 - np.pi / 4, abs=0.005)
    assert blank[0, 0] and blank[-1, -1] and not blank[lookup.shape[0] // 2].any()


def test_a_patch_across_zero_right_ascension_stays_one_piece() -> None:
    axes = plots_sky.sky_maps(patch_sky(0.0, 10.0), []).axes[0]
    left, right = axes.get_xlim()
    assert abs(left - right) < 8


def test_pixels_with_few_stars_show_no_median() -> None:
    whole = south()
    thin = SkyMap(
        whole.order, whole.pixels, np.where(np.arange(len(whole.pixels)) == 0, 1, 100), whole.medians
    )
    counts, medians = plots_sky._panels(thin, LABELS)
    assert np.isfinite(counts.values).all()
    assert np.isnan(medians.values[0]) and np.isfinite(medians.values[1:]).all()


def test_two_loss_phases_have_their_own_panels() -> None:
    figure = plots_run.training_curves(CURVES)
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss (mae)"] * 2 + ["loss (smape)", ""]


def test_cut_flow_bars_are_the_rows() -> None:
    bars = plots_run.cut_flow(CUT_FLOW).axes[0].patches
    assert [bar.get_width() for bar in bars] == [1234, 900, 0, 334]


def drawn_errors(metrics: Metrics) -> list[tuple[np.ndarray, float, np.ndarray]]:
    """Return, for each panel of Figure 2, the heights of its bins, their width, and the heights at both ends."""
    panels = []
    for axes in plots_accuracy.error_histogram(metrics, {}).axes:
        outline = next(p for p in axes.patches if isinstance(p, StepPatch)).get_data()
        ends = np.array([bar.get_height() for bar in axes.patches if isinstance(bar, Rectangle)])
        panels.append((outline.values, float(outline.edges[1] - outline.edges[0]), ends))
    return panels


def test_figure_2_shows_every_star_and_its_area_is_one() -> None:
    metrics = metrics_of(3000)
    for (heights, step, ends), label in zip(drawn_errors(metrics), LABELS, strict=True):
        assert (heights.sum() + ends.sum()) * step == pytest.approx(1.0)
        beyond = np.array([metrics.counts[f"errors/{label.name}"].n[i] for i in (0, -1)])
        assert beyond.sum() > 0, "the made-up errors have tails"
        assert ends * step * 3000 == pytest.approx(beyond)


def test_figure_2_of_samples_of_different_size_compares() -> None:
    """The same stars ten times over: the same heights, and the same curves beside them."""
    once = metrics_of(800)
    tenfold = {
        name: replace(counts, n=10 * counts.n, total=10 * counts.total, squares=10 * counts.squares)
        for name, counts in once.counts.items()
    }
    often = _metrics(LABELS, 68, 8000, once.scales, once.ranges, tenfold)
    for (heights, _, ends), (more, _, more_ends) in zip(drawn_errors(once), drawn_errors(often), strict=True):
        assert more == pytest.approx(heights) and more_ends == pytest.approx(ends)
    for few, many in zip(
        *(plots_accuracy.error_histogram(m, {"teff": 85.0}).axes for m in (once, often)), strict=True
    ):
        for line, other in zip(few.lines, many.lines, strict=True):
            assert other.get_ydata() == pytest.approx(line.get_ydata(), rel=0.02)


def test_figure_2_tells_how_many_stars_lie_beyond_its_axis() -> None:
    counted = metrics_of(3000).counts["errors/teff"].n
    texts = [
        text.get_text()
        for text in plots_accuracy.error_histogram(metrics_of(3000), {}).axes[0].get_legend().get_texts()
    ]
    assert "3,000 test stars" in texts
    assert any(f"{counted[0]} below, {counted[-1]} above" in text for text in texts)


def test_captions_tell_how_many_stars_are_not_drawn() -> None:
    metrics = metrics_of(3000)
    pictures = accuracy_figures(metrics, {})
    for name, histogram in (("one_to_one", "one_to_one/teff"), ("residuals", "density/teff/teff")):
        missing = 3000 - metrics.counts[histogram].rows
        assert missing > 0
        assert f"Beyond the panels, and not drawn: {missing} (teff)" in str(pictures[name].caption)
    assert "divided by their number" in str(pictures["errors"].caption)
    lone = metrics_of(3, LABELS[:1])
    inside = lone.counts["one_to_one/teff"].rows == 3
    assert ("No star lies beyond" in str(accuracy_figures(lone, {})["one_to_one"].caption)) == inside


def test_figures_are_left_out_where_there_is_nothing_to_draw() -> None:
    assert accuracy_figures(Metrics.nothing(LABELS, 68), {}) == {}
    nobody = SkyMap(6, np.array([], dtype=np.int64), np.array([], dtype=np.int64), {})
    assert catalogue_figures({"kiel": kiel_counts(0)}, {"cmd": kiel_counts(0)}, nobody, LABELS) == {}
    assert run_figures([{"label": "teff", "epochs": []}], []) == {}


def test_names_are_written_as_the_field_writes_them() -> None:
    assert axis_label("feh", "dex", "predicted ") == "predicted [Fe/H] [dex]"
    assert symbol("a$b_c") == r"a\$b_c"
    assert plain(-2.5) == "−2.5" and plain(20_000) == "20,000" and plain(0.05) == "0.05"


def test_joined_bins_keep_every_star() -> None:
    counts = np.arange(48).reshape(6, 8)
    joined = coarsen(counts, 2)
    assert joined.shape == (3, 4) and joined.sum() == counts.sum()
    assert joined[0, 0] == 0 + 1 + 8 + 9


def test_limits_hold_the_occupied_bins() -> None:
    counts = np.zeros((100, 1), dtype=np.int64)
    counts[20:31] = 5
    lo, hi = occupied_limits(counts, np.linspace(0, 100, 101), 0)
    assert (lo, hi) == pytest.approx((20 - 0.44, 31 + 0.44))


def test_flag_fractions_count_each_bit() -> None:
    values = np.array([0, 1, 3, 128, 129, 0, 0, 0], dtype=float)
    counts = fill(Histogram("flags", (linear_axis("f", 0, 2**16, 2**16),)), {"f": values})
    assert flag_fractions(counts) == {0: 3 / 8, 1: 1 / 8, 7: 2 / 8}


def test_separate_fields_are_found_across_ra_0_and_at_a_pole() -> None:
    found = plots_sky.separate_fields(three_fields())
    stars = three_fields().stars
    shares = [float(stars[rows].sum() / stars.sum()) for rows in found]
    assert shares == pytest.approx([1 / 2, 1 / 3, 1 / 6])
    assert sorted(np.concatenate(found).tolist()) == list(range(len(stars)))
