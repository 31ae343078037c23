"""A physically grounded sky, written as the files that the archives ship."""

from stellarml.simulate.run import simulate
from stellarml.simulate.settings import Realism, SimulateSettings, SimulateSummary

__all__ = ["Realism", "SimulateSettings", "SimulateSummary", "simulate"]
