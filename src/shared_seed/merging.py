"""The union of logs of one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from shared_seed import history, log
from shared_seed.archive import Archive
from shared_seed.errors import LogError, ManifestMismatchError
from shared_seed.log import Contents
from shared_seed.manifest import Manifest


def merge(logs: Sequence[Contents]) -> Contents:
    """The one log of all that some logs of a run hold: messages, who wrote them, orders, and proofs of forks.

    The order of the logs, and a log that is there twice, make no difference. A digest is stated if one of the logs
    is the union itself and states it.

    Args:
        logs: one or more.

    Raises:
        LogError: they are of different runs, one of them does not hold a run that is whole, or they say different
            things in a run that nobody has signed.
    """
    manifest, signature = _terms(logs)
    # The order decides which of several proofs of one fork is found, so it is not the callers'.
    parts = sorted((_canonical(each) for each in logs), key=log.encode)
    union = Archive(manifest)
    for part in parts:
        history.restore(union, part, quietly=True)
        if not manifest.owner:
            _check_held(union, part)
    union.take()
    contents = history.contents_of(union, manifest, signature)
    return replace(contents, digest=_stated(contents, parts))


def _terms(logs: Sequence[Contents]) -> tuple[Manifest, bytes]:
    """The manifest that all have, with as many rounds as the longest, and its owner's signature."""
    first = logs[0].manifest
    for other in logs[1:]:
        if other.manifest.seal == first.seal:
            continue
        try:
            first.check_equal(other.manifest.model_copy(update={"rounds": first.rounds}))
        except ManifestMismatchError as error:
            raise LogError(f"these are logs of different runs, which have no union: {error}") from error
    longest = max(logs, key=lambda each: (each.manifest.rounds, each.signature))
    return longest.manifest, longest.signature


def _canonical(contents: Contents) -> Contents:
    archive = history.archive_of(contents)
    digest = (len(archive), contents.digest[1]) if contents.finished and contents.digest else None
    return replace(history.contents_of(archive, contents.manifest, contents.signature), digest=digest)


def _check_held(union: Archive, part: Contents) -> None:
    """Make sure that a union contains an unsigned part; where things are signed, a fork explains what it lacks."""
    archive = history.archive_of(part)
    for stream in archive.streams:
        count = archive.count(stream)
        if union.head(stream, count) != archive.head(stream, count):
            raise LogError(
                f"the logs say different things in stream {stream} of a run that nobody has signed, so that it is "
                "not known which is right; expected logs that part in what different peers have written"
            )


def _stated(union: Contents, parts: Sequence[Contents]) -> tuple[int, bytes] | None:
    held = (union.signed, union.statements)
    stated = {part.digest for part in parts if part.digest and (part.signed, part.statements) == held}
    if len(stated) > 1:
        digests = " and ".join(sorted(value.hex() for _, value in stated))
        raise LogError(
            f"logs with the same messages state different digests, {digests}; replay one of them with "
            "`shared-seed replay` to see which is right"
        )
    return next(iter(stated), None)
