"""Whether a run has kept what a shared seed promises."""

from __future__ import annotations

from simulation.world import World


def broken(world: World) -> list[str]:
    """What is wrong at the end of a run; nothing, if all is well."""
    survivors = world.survivors
    out = []
    unfinished = [peer.protocol.name for peer in survivors if not peer.done]
    if unfinished:
        out.append(f"{len(unfinished)} have not finished: {', '.join(unfinished[:5])}")
    if len({peer.weights for peer in survivors}) > 1:
        out.append("weights differ")
    reference = survivors[0].log
    version = survivors[0].protocol.messages.version()
    if any(peer.protocol.messages.version() != version for peer in survivors):
        out.append("sets differ")
    if any(sum(peer.protocol.messages.version().values()) != len(peer.log) for peer in survivors):
        out.append("weights are not those of the sets")
    forged = [m for m in reference if m not in world.published.get(m.stream, ())]
    if forged:
        out.append(f"{len(forged)} messages that nobody published")
    for peer in survivors:
        stream = peer.protocol.stream
        missing = len(world.published.get(stream, ())) - version.get(stream, 0)
        if missing:
            out.append(f"{missing} messages of {peer.protocol.name} are missing")
    return out
