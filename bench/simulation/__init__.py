"""A discrete-event simulation of listeners around the engine's real scheduler: no model, no waiting."""

from bench.simulation.listeners import Behaviour, Session, Turn
from bench.simulation.machines import BUSY_CPU, CPU, H100, Machine
from bench.simulation.results import Results
from bench.simulation.world import World, simulate

__all__ = ["BUSY_CPU", "CPU", "H100", "Behaviour", "Machine", "Results", "Session", "Turn", "World", "simulate"]
