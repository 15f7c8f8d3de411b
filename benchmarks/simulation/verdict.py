"""Whether a run has kept what a shared seed promises."""

from __future__ import annotations

from shared_seed.archive import Archive
from shared_seed.buckets import BUCKETS
from shared_seed.messages import Stream
from simulation.world import World


def broken(world: World) -> list[str]:
    """What is wrong at the end of a run; nothing, if all is well."""
    survivors = world.survivors
    out = []
    unfinished = [peer.protocol.author.name for peer in survivors if not peer.done]
    if unfinished:
        out.append(f"{len(unfinished)} have not finished: {', '.join(unfinished[:5])}")
    if len({peer.weights for peer in survivors}) > 1:
        out.append("weights differ")
    reference = survivors[0].protocol.archive
    if any(levels(peer.protocol.archive) != levels(reference) for peer in survivors):
        out.append("sets differ")
    if any(len(peer.protocol.archive) != peer.applied for peer in survivors):
        out.append("weights are not those of the sets")
    published = {message for said in world.published.values() for message in said}
    forged = sum(message not in published for message in reference)
    if forged:
        out.append(f"{forged} messages that nobody published")
    for peer in survivors:
        stream = peer.protocol.author.stream
        missing = len(world.published.get(stream, ())) - reference.count(stream)
        if missing:
            out.append(f"{missing} messages of {peer.protocol.author.name} are missing")
    spoken = [peer.protocol.author.stream for peer in world.stand_ins]
    unheard = sum(len(world.published.get(stream, ())) != reference.count(stream) for stream in spoken)
    if unheard:
        out.append(f"messages of {unheard} stand-ins are missing")
    return out


def levels(archive: Archive) -> dict[Stream, tuple[int, bytes]]:
    """Of each stream, how many messages there are, and the head, which all of them are hashed into."""
    return {stream: (count, head) for part in range(BUCKETS) for stream, count, head in archive.levels(part)}
