"""What all peers of a simulated run have agreed on, and who they are."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from shared_seed.admission import LABEL_SIZE, Introduction
from shared_seed.archive import Archive
from shared_seed.identity import Key
from shared_seed.manifest import Limits, Manifest, TensorSpec
from shared_seed.messages import Stream
from shared_seed.noise import Family
from shared_seed.swarm.author import Author, Terms

_OWNER = Key(b"owner of the simulated run".ljust(32))


@dataclass(frozen=True)
class Agreement:
    """A manifest, its owner's signature, and both as they go over links; what it says of a model is of none."""

    manifest: Manifest
    signature: bytes
    terms: Terms

    @classmethod
    def of(cls, rounds: int, start_with: int, lockstep: bool) -> Agreement:
        """A run of this owner that is open to everybody."""
        manifest = Manifest(
            run="5eed" * 8,
            nonce="00" * 16,
            owner=_OWNER.public.hex(),
            model="none",
            frozen_digest="00",
            tensors=(TensorSpec(name="weight", shape=(1,), family=Family.DENSE, exponent=20, digest="00"),),
            epsilon=2.0**-8,
            scale_exponent=0,
            rounds=rounds,
            start_with=start_with,
            lockstep=lockstep,
            limits=Limits(learning_rate=1.0, samples_per_message=1),
        )
        signature = manifest.sign(_OWNER)
        return cls(manifest, signature, Terms.of(manifest, signature))

    def author(self, name: str, chance: random.Random) -> Author:
        """Somebody with a key of their own, and the first stream of their first peer."""
        return self.renamed(Author(Stream(bytes(12)), name, Key(chance.randbytes(32))), chance)

    def renamed(self, author: Author, chance: random.Random) -> Author:
        """Another peer of the same key, as after a run folder was lost."""
        assert author.key is not None
        introduction = Introduction(author.key.public, chance.randbytes(LABEL_SIZE))
        stream = Stream(introduction.peer(self.manifest.run_bytes))
        return replace(author, stream=stream, introduction=introduction)

    def archive(self) -> Archive:
        """An empty one."""
        return Archive(self.manifest)


def restarted(author: Author) -> Author:
    """The same peer's next process."""
    return replace(author, stream=author.stream.restarted())
