"""What the report says of a model: its training curves, and the facts of its card."""

from __future__ import annotations

from typing import Any

from stellarml.model.manifest import Manifest


def training_curves(manifest: Manifest) -> list[dict[str, Any]]:
    """Return the training curve of every network."""
    units = {label.name: label.unit for label in manifest.labels}
    return [
        {
            "label": ", ".join(network.outputs),
            "unit": units[network.outputs[0]] if len(network.outputs) == 1 else "",
            "epochs": list(network.curve.epoch),
            "loss": list(network.curve.loss),
            "val_loss": list(network.curve.val_loss),
            "phase": list(network.curve.phase),
        }
        for network in manifest.networks
    ]


def card_facts(manifest: Manifest) -> dict[str, Any]:
    """Return what a reader should know of the model: data, counts, networks, limits."""
    return {
        "id": manifest.id,
        "preset": manifest.preset,
        "created_utc": manifest.created_utc,
        "counts": manifest.counts,
        "features": [f"{f.name} [{f.unit}]" for f in manifest.features.features],
        "networks": [
            {
                "outputs": list(n.outputs),
                "widths": list(n.widths),
                "losses": list(n.losses),
                "best_epoch": n.best_epoch,
            }
            for n in manifest.networks
        ],
        "seed": manifest.seed,
        "split": manifest.split,
        "calibrated_on": manifest.calibration.part,
        "warnings": list(manifest.warnings),
        "metrics": manifest.metrics,
    }
