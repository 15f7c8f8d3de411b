"""What all peers of a run must agree on."""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from shared_seed.codec import SCALE_EXPONENTS
from shared_seed.errors import ManifestMismatchError
from shared_seed.identity import Key, verify
from shared_seed.messages import as_float32
from shared_seed.noise import MOST_TENSORS, Family
from shared_seed.visible import cleaned

LARGEST_PACKED = 4 << 20
LARGEST_UNPACKED = 32 << 20
"""Bytes of a manifest, packed and unpacked, beyond which it is refused."""

MOST_VALUES = 1 << 20
"""Values in a manifest's JSON: an empty list of two bytes takes 56 once it is parsed."""

LONGEST_REASON = 500
"""Characters of what is said against a manifest, which may quote it."""

EXPONENTS = 300
"""Beyond what a grid of float32 numbers can have, with which powers of two are still numbers."""

MOST_KEYS = 4096
"""Keys that a manifest may list."""

SIGNED = b"shared-seed manifest"
"""What the owner's signature covers before the digest, so that it is of nothing else."""

Hex = Annotated[str, Field(pattern=r"^[0-9a-f]+$")]
PublicKey = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def _finite(text: str) -> float:
    """The number that a JSON text means, which must be one that JSON can write."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, in which readers differ on which of two equal keys counts."""
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("an object with a key twice")
    return content


def _shown(error: Exception) -> str:
    """What an error says, without what a terminal would obey: it may quote somebody else's text."""
    said = str(error)[: 4 * LONGEST_REASON].split()
    return "".join(c if c.isprintable() else "?" for c in " ".join(said))[:LONGEST_REASON]


def _text(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


HINTS = {
    "frozen_digest": "; it is of what is not trained, such as embeddings or an adapter's base; load the same base "
    "model as the run"
}
"""What to do where a field differs, if that is known."""


class TensorSpec(_Strict):
    """One trainable parameter: its name in the model, shape, direction family, grid exponent, first bits, and
    its learning rate as a multiple of what messages carry, a float32 number.
    """

    name: str
    shape: tuple[Annotated[int, Field(ge=0, lt=1 << 48)], ...]
    family: Family
    exponent: int = Field(ge=-EXPONENTS, le=EXPONENTS)
    digest: Hex
    rate: float = Field(default=1.0, ge=0)

    @field_validator("shape", mode="before")
    @classmethod
    def _tuple(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @model_serializer(mode="wrap")
    def _brief(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out a rate of 1, which most are."""
        content: dict[str, Any] = whole(self)
        if self.rate == 1:
            del content["rate"]
        return content

    @field_validator("rate")
    @classmethod
    def _float32(cls, value: float) -> float:
        if as_float32(value) != value:
            raise ValueError(f"rate {value} is not a float32 number, so that steps would not be exact")
        return value

    @field_validator("family", mode="before")
    @classmethod
    def _family(cls, value: object) -> object:
        return Family(value) if isinstance(value, str) else value


STREAMS_PER_KEY, MOST_STREAMS_PER_KEY = 1024, 65535
"""Streams that count of one key, where nothing else is said, and at most."""

BYTES_PER_SECOND = 1_000_000
"""What one key may send into one node, where nothing else is said."""

LEAST_BYTES_PER_SECOND, BYTES_PER_SECOND_END = 1000, 1 << 48


class Limits(_Strict):
    """What a message may ask for."""

    learning_rate: float = Field(gt=0)
    samples_per_message: int = Field(ge=1, le=255)
    streams_per_key: int = Field(default=STREAMS_PER_KEY, ge=1, le=MOST_STREAMS_PER_KEY)
    bytes_per_second: int = Field(default=BYTES_PER_SECOND, ge=LEAST_BYTES_PER_SECOND, lt=BYTES_PER_SECOND_END)
    """What one key may send into one node."""


class Admission(_Strict):
    """Who may take part beside the owner: ``open`` everybody, ``keys`` those whose public keys are listed,
    ``invite`` these and whoever has an invite from the owner.

    The keys are kept in ascending order, each once, so that equal lists give equal digests.
    """

    mode: Literal["open", "keys", "invite"] = "open"
    keys: tuple[PublicKey, ...] = Field(default=(), max_length=MOST_KEYS)

    @field_validator("keys", mode="before")
    @classmethod
    def _tuple(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("keys")
    @classmethod
    def _ordered(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(value)))

    @model_validator(mode="after")
    def _keys_mean_something(self) -> Admission:
        if self.mode == "open" and self.keys:
            raise ValueError("keys are listed, but admission is open to everybody; expected 'keys' or 'invite'")
        return self


class Aggregation(_Strict):
    """How the gradients of a round become steps: all added up, or as :mod:`shared_seed.aggregation` has it."""

    kind: Literal["sum", "clip", "trimmed"] = "sum"
    factor: float = Field(default=3.0, gt=0)
    trim: float = Field(default=0.25, ge=0, lt=0.5)

    @property
    def shared(self) -> bool:
        """Whether peers share directions, each evaluating them on its own data."""
        return self.kind == "trimmed"


class Manifest(_Strict):
    """The terms of a run; peers whose manifests differ do not exchange gradients.

    ``owner`` is the public key of whoever began the run, 64 hex digits, or nothing where nobody did so for others;
    then there is no ``nonce`` either, which is random, so that no two runs have the same terms.
    """

    format: Literal[2] = 2
    run: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    nonce: Annotated[str, Field(pattern=r"^([0-9a-f]{32})?$")] = ""
    owner: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    admission: Admission = Admission()
    model: str
    frozen_digest: Hex
    tensors: tuple[TensorSpec, ...]
    epsilon: float = Field(gt=0)
    scale_exponent: int = Field(ge=SCALE_EXPONENTS[0], le=SCALE_EXPONENTS[-1])
    rounds: int = Field(ge=1, lt=1 << 32)
    start_with: int = Field(ge=1)
    lockstep: bool = True
    limits: Limits
    recipe: dict[str, Any] | None = None
    aggregation: Aggregation = Aggregation()

    @field_validator("format", mode="before")
    @classmethod
    def _integer(cls, value: object) -> object:
        if type(value) is not int:
            raise ValueError(f"format {value!r} is not an integer")
        return value

    @field_validator("tensors", mode="before")
    @classmethod
    def _tuple(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @model_serializer(mode="wrap")
    def _brief(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out a plain sum, which is the default and what logs without the field mean."""
        content: dict[str, Any] = whole(self)
        if self.aggregation == Aggregation():
            del content["aggregation"]
        return content

    @field_validator("tensors")
    @classmethod
    def _bounded(cls, value: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
        if not 1 <= len(value) < MOST_TENSORS:
            raise ValueError(f"expected 1 to {MOST_TENSORS} trainable tensors, got {len(value)}")
        return value

    @model_validator(mode="after")
    def _somebody_can_invite(self) -> Manifest:
        if self.admission.mode == "invite" and not self.owner:
            raise ValueError("admission is by invite, but there is no owner who could sign one")
        return self

    @property
    def run_bytes(self) -> bytes:
        """The 16 bytes that key this run's noise, the same when the run is made again."""
        return bytes.fromhex(self.run)

    @property
    def seal(self) -> bytes:
        """16 bytes that name this very run: what is signed in it says nothing in another, be it made alike."""
        content = self.model_dump(mode="json", exclude={"rounds"})  # which may grow when a run is taken up again
        return hashlib.blake2b(_text(content), digest_size=16, person=b"shared-seed seal").digest()

    @property
    def owner_bytes(self) -> bytes:
        """The owner's public key, 32 bytes, or none."""
        return bytes.fromhex(self.owner)

    def canonical(self) -> bytes:
        """The one JSON text of this manifest."""
        return _text(self.model_dump(mode="json"))

    def digest(self) -> bytes:
        """SHA-256 of :meth:`canonical`."""
        return hashlib.sha256(self.canonical()).digest()

    def sign(self, key: Key) -> bytes:
        """The 64 bytes with which its owner, whose key this must be, vouches for this manifest."""
        return key.sign(SIGNED + self.digest())

    def check_signature(self, signature: bytes) -> None:
        """Make sure that the owner, if there is one, has signed this manifest.

        Raises:
            ManifestMismatchError: the signature is not the owner's, or is of another manifest.
        """
        if self.owner and not verify(self.owner_bytes, SIGNED + self.digest(), signature):
            raise ManifestMismatchError(
                f"the manifest of run {self.run} is not signed by its owner, {self.owner}; expected the signature "
                "of these very terms, which whoever sent them may have changed; join at another address"
            )

    def pack(self) -> bytes:
        """Canonical JSON, deflated."""
        return zlib.compress(self.canonical(), 9)

    @classmethod
    def unpack(cls, data: bytes) -> Manifest:
        """The manifest that :meth:`pack` wrote, parsed strictly and with bounded memory.

        Raises:
            ManifestMismatchError: the bytes are not a manifest that this release reads.
        """
        if len(data) > LARGEST_PACKED:
            raise ManifestMismatchError(
                f"a manifest of {len(data)} bytes; this release reads up to {LARGEST_PACKED}"
            )
        try:
            inflater = zlib.decompressobj()
            text = inflater.decompress(data, LARGEST_UNPACKED)
            if not inflater.eof or inflater.unused_data:
                raise ManifestMismatchError("a manifest that is cut off, too large, or followed by other bytes")
            if sum(map(text.count, (b"[", b"{", b","))) > MOST_VALUES:
                raise ManifestMismatchError(f"a manifest with more than {MOST_VALUES} values")
            content = json.loads(
                text.decode(), parse_float=_finite, parse_constant=_finite, object_pairs_hook=_once
            )
            json.dumps(content, ensure_ascii=False).encode()  # raises for halves of characters
            manifest = cls.model_validate(content)
            manifest.canonical()  # raises for what JSON readers take but writers do not
            return manifest
        except (zlib.error, ValueError, RecursionError, ValidationError) as error:
            raise ManifestMismatchError(
                f"not a manifest that this release reads: {_shown(error)}; expected the terms of a run "
                "that was begun with the same release"
            ) from error

    def check_equal(self, theirs: Manifest) -> None:
        """Make sure that another manifest says the same.

        Raises:
            ManifestMismatchError: names the first field that differs, ours and theirs.
        """
        here, there = self.model_dump(mode="json"), theirs.model_dump(mode="json")
        for name in type(self).model_fields:
            # As JSON, since 1 == 1.0 == True in Python, but not in a digest.
            if json.dumps(here.get(name), sort_keys=True) == json.dumps(there.get(name), sort_keys=True):
                continue
            mine, other = getattr(self, name), getattr(theirs, name)
            if name == "tensors":
                self._explain_tensors(mine, other)
            raise ManifestMismatchError(
                f"field {name!r} of the manifest differs: ours {mine!r}, theirs {other!r}" + HINTS.get(name, "")
            )

    @staticmethod
    def _explain_tensors(mine: tuple[TensorSpec, ...], theirs: tuple[TensorSpec, ...]) -> None:
        for ours, other in zip(mine, theirs, strict=False):
            for name in TensorSpec.model_fields:
                here, there = getattr(ours, name), getattr(other, name)
                if here != there:
                    hint = "; load the same base model as the run" if name == "digest" else ""
                    raise ManifestMismatchError(
                        f"the {name} of trainable parameter {ours.name!r} differs: "
                        f"ours {here!s}, theirs {cleaned(str(there))}{hint}"
                    )
        raise ManifestMismatchError(
            f"the number of trainable parameters differs: ours {len(mine)}, theirs {len(theirs)}"
        )
