"""Which networks there are to choose from, and how each is fitted.

`paper` follows Turchi et al. 2024: 18 hidden layers of Dense, leaky ReLU, batch normalisation and dropout, 80 to 160
wide in a diamond, one network a label, MAE and then SMAPE in physical units. What the paper leaves open is ours: slope
0.1, dropout 0.5 %, Adam with a warm-up of 200 steps and a cosine to a hundredth of 0.005 (0.0005 with SMAPE), batches
of 256, 60 + 20 epochs (at most 60,000 steps), the epoch with the lowest validation MAE, decorrelated inputs, and for
missing ones the conditional mean and a mask. With 34,000 simulated stars and 16 epochs at a rate of 0.002 the mean
[Fe/H] error was 0.181 dex with the training median for missing inputs and 0.135 with the conditional mean; at 0.005
it was 0.119.

`small` is for demos and tests: one network for all labels, no batch normalisation (half of the time of a step), no
dropout (5 % raised the standard deviation of the errors threefold), and SiLU (a few per cent better than leaky ReLU).

`default` averages four networks of four layers of 192, fed with the features and, beside them, with their decorrelated
axes, and trained on copies with missing values, too. On folds 0 to 2 of the LAMOST table (MAD of Teff, log g, [Fe/H]),
with three layers of 128: one network with the rotated inputs alone 91.7 K, 0.187, 0.181 (all five folds); four 87.0,
0.182, 0.179; with weight decay 86.8, 0.182, 0.182; with copies 86.3, 0.181, 0.178; features alone 84.7, 0.177, 0.179;
both 83.8, 0.177, 0.171. On five other folds half a copy a star gave 83.6, 0.178, 0.171, two copies like other stars
84.4, 0.177, 0.173: no better, but without u and v the error of [Fe/H] on the simulated sky fell from 0.228 to 0.180. A
weight decay of 3 cost [Fe/H] 0.02 dex. The size was chosen on the simulated sky, with 200,000 training stars and their
copies: validation MAE of one network (in standard deviations) with a weight decay of 0.3: 0.1154 with three layers of
128, 0.1157 with 64,000 steps, 0.1151 with four layers, 0.1145 with three of 192, 0.1135 with four of 192. Neither eight
layers (0.1143) nor 120,000 steps (0.1137) nor complete stars alone (0.1135) helped: the decay held it back. With 0.03
it is 0.1110, with none 0.1119. So the preset names the decay of a whole training: 1.8 is 0.03 there, and 0.3 with
LAMOST's few stars and steps, where 0.03 raised the MAD of Teff from 85.9 to 90.0 K (fold 0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stellarml.core.errors import ConfigError, did_you_mean

Loss = Literal["mae", "smape"]


@dataclass(frozen=True)
class Phase:
    """One stretch of training with one loss; the learning rate falls along a cosine to a hundredth."""

    loss: Loss
    epochs: int
    learning_rate: float


@dataclass(frozen=True)
class Preset:
    """A network and its fit.

    `per_label`: one network a label instead of one with an output each. `max_steps` bounds the batches of all phases
    together (0: no bound), so that a large table does not take longer than a small one; but there are three epochs at
    least. `members`: networks that are averaged. `rotate`: inputs are decorrelated axes instead of the features, or
    beside them. `scales`: the network also gives how wide its error is, down and up, for the intervals.
    `weight_decay`: weights that no gradient holds shrink by ``exp(-weight_decay)`` over a whole training, be it long or
    short. `missing_copies`: at most so many copies of the training stars are added, each with columns taken away, so
    that any subset of bands may be missing.
    """

    name: str
    widths: tuple[int, ...]
    phases: tuple[Phase, ...]
    per_label: bool = False
    activation: Literal["leaky_relu", "silu"] = "leaky_relu"
    slope: float = 0.1
    batch_norm: bool = False
    dropout: float = 0.0
    imputation: Literal["median", "gaussian"] = "gaussian"
    rotate: Literal["no", "yes", "beside"] = "yes"
    batch_rows: int = 256
    max_steps: int = 0
    members: int = 1
    scales: bool = False
    weight_decay: float = 0.0
    missing_copies: float = 0.0

    @property
    def epochs(self) -> int:
        """Epochs of all phases."""
        return sum(phase.epochs for phase in self.phases)


DIAMOND = (80, 90, 100, 110, 120, 130, 140, 150, 160, 160, 150, 140, 130, 120, 110, 100, 90, 80)

PRESETS: dict[str, Preset] = {
    "paper": Preset(
        name="paper",
        widths=DIAMOND,
        phases=(Phase("mae", 60, 5e-3), Phase("smape", 20, 5e-4)),
        per_label=True,
        batch_norm=True,
        dropout=0.005,
        max_steps=60_000,
    ),
    "small": Preset(
        name="small",
        widths=(64, 64, 64),
        activation="silu",
        phases=(Phase("mae", 60, 1e-2),),
        max_steps=10_000,
    ),
    "default": Preset(
        name="default",
        widths=(192, 192, 192, 192),
        activation="silu",
        phases=(Phase("mae", 60, 3e-3),),
        rotate="beside",
        max_steps=40_000,
        members=4,
        scales=True,
        weight_decay=1.8,
        missing_copies=2.0,
    ),
}


def preset_named(name: str) -> Preset:
    """Return a preset.

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    if name not in PRESETS:
        raise ConfigError(
            f"train.preset is '{name}', which is no preset.{did_you_mean(name, PRESETS)} Known: {', '.join(PRESETS)}."
        )
    return PRESETS[name]
