"""Whether new sessions are taken, for load balancers."""

from __future__ import annotations

from streamer.server.state import ServerState


def readiness(state: ServerState) -> tuple[bool, str]:
    """(True, ``ready``), or (False, why no new session should be sent here): stopping, failed or full."""
    engine = state.speech.engine
    if state.draining:
        return False, "the server is stopping"
    if engine.failure is not None:
        return False, engine.failure
    held, config = engine.holdings(), engine.config
    if held.streams >= config.max_sessions:
        return False, f"all {config.max_sessions} sessions are taken"
    if held.waiting >= config.max_waiting:
        return False, f"all {config.max_waiting} places of the queue are taken"
    return True, "ready"
