"""Who watches a training: lines of progress, warnings, TensorBoard, and the folder that a killed one goes on from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stellarml.core import progress
from stellarml.training.course import Epoch, OnEpoch
from stellarml.training.network import scalars_to


def _nobody(line: str) -> None:
    pass


@dataclass(frozen=True)
class Watch:
    """Who is shown the progress of a training, and where it is kept.

    progress
        Called with a line an epoch, and with warnings unless there is a `warn`.
    checkpoints
        A folder for the state of each network after each epoch, from which a killed training goes on, to the same
        bits; the caller removes it.
    logs
        A folder for TensorBoard's event files, one folder a network.
    warn
        Called with each warning.
    """

    progress: Callable[[str], None] = _nobody
    checkpoints: Path | None = None
    logs: Path | None = None
    warn: Callable[[str], None] | None = None

    def warned(self, warnings: list[str], before: Sequence[str] = ()) -> list[str]:
        """Show warnings, those of `before` first, and return the new ones."""
        for warning in (*before, *warnings):
            if self.warn:
                self.warn(warning)
            else:
                self.progress(f"warning: {warning}")
        return warnings

    def on_epoch(self, title: str, number: int, networks: int) -> OnEpoch:
        """Return what is called after each epoch of a network, the `number`-th of so many."""
        more = networks - number - 1
        after = f" + {more} more network{'s' if more > 1 else ''}" if more else ""
        to_tensorboard = scalars_to(self.logs / f"network{number:02d}") if self.logs else None

        begun = False

        def show(epoch: Epoch, best: Epoch, planned: int, seconds_left: float) -> None:
            nonlocal begun
            if not begun:
                begun = True
                shown = f"{title}, network {number + 1} of {networks}" if networks > 1 else title
                progress.step(shown, planned, "epochs")
            progress.reached(
                epoch.epoch,
                (
                    f"loss {epoch.loss:.4f}",
                    f"validation {epoch.val_loss:.4f}",
                    f"best MAE {best.val_mae:.4f} sd in {best.epoch}",
                ),
                seconds_left,
            )
            minutes, seconds = divmod(round(seconds_left), 60)
            self.progress(
                f"{title}: epoch {epoch.epoch}/{planned} {epoch.phase} loss {epoch.loss:.4f} validation "
                f"{epoch.val_loss:.4f} MAE {epoch.val_mae:.4f} sd (best {best.val_mae:.4f} in {best.epoch}) "
                f"{minutes}:{seconds:02d} left{after}"
            )
            if to_tensorboard:
                to_tensorboard(epoch, best, planned, seconds_left)

        return show
