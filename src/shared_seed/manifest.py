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
)

from shared_seed.codec import SCALE_EXPONENTS
from shared_seed.directions import Family
from shared_seed.errors import ManifestMismatchError
from shared_seed.messages import as_float32
from shared_seed.noise import MOST_TENSORS

LARGEST_PACKED = 4 << 20
LARGEST_UNPACKED = 64 << 20
"""Bytes of a manifest, packed and unpacked, beyond which it is refused."""

Hex = Annotated[str, Field(pattern=r"^[0-9a-f]+$")]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def _finite(text: str) -> float:
    """The number that a JSON text means, which must be one that JSON can write."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value


class TensorSpec(_Strict):
    """One trainable parameter: its name in the model, shape, direction family, grid exponent, first bits, and
    its learning rate as a multiple of what messages carry, a float32 number.
    """

    name: str
    shape: tuple[int, ...]
    family: Family
    exponent: int
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


class Limits(_Strict):
    """What a message may ask for."""

    learning_rate: float = Field(gt=0)
    samples_per_message: int = Field(ge=1, le=255)


class Manifest(_Strict):
    """The terms of a run; peers whose manifests differ do not exchange gradients."""

    format: Literal[1] = 1
    run: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
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

    @field_validator("tensors", mode="before")
    @classmethod
    def _tuple(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("tensors")
    @classmethod
    def _bounded(cls, value: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
        if not 1 <= len(value) < MOST_TENSORS:
            raise ValueError(f"expected 1 to {MOST_TENSORS} trainable tensors, got {len(value)}")
        return value

    @property
    def run_bytes(self) -> bytes:
        """The 16 bytes that key this run's noise."""
        return bytes.fromhex(self.run)

    def canonical(self) -> bytes:
        """The one JSON text of this manifest."""
        content = self.model_dump(mode="json")
        return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()

    def digest(self) -> bytes:
        """SHA-256 of :meth:`canonical`."""
        return hashlib.sha256(self.canonical()).digest()

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
            content = json.loads(text, parse_float=_finite, parse_constant=_finite)
            manifest = cls.model_validate(content)
            manifest.canonical()  # raises for what JSON readers take but writers do not
            return manifest
        except (zlib.error, ValueError, RecursionError, ValidationError) as error:
            raise ManifestMismatchError(f"not a manifest that this release reads: {error}") from error

    def check_equal(self, theirs: Manifest) -> None:
        """Make sure that another manifest says the same.

        Raises:
            ManifestMismatchError: names the first field that differs, ours and theirs.
        """
        here, there = self.model_dump(mode="json"), theirs.model_dump(mode="json")
        for name in type(self).model_fields:
            # As JSON, since 1 == 1.0 == True in Python, but not in a digest.
            if json.dumps(here[name], sort_keys=True) == json.dumps(there[name], sort_keys=True):
                continue
            mine, other = getattr(self, name), getattr(theirs, name)
            if name == "tensors":
                self._explain_tensors(mine, other)
            raise ManifestMismatchError(f"field {name!r} of the manifest differs: ours {mine!r}, theirs {other!r}")

    @staticmethod
    def _explain_tensors(mine: tuple[TensorSpec, ...], theirs: tuple[TensorSpec, ...]) -> None:
        for ours, other in zip(mine, theirs, strict=False):
            for name in TensorSpec.model_fields:
                here, there = getattr(ours, name), getattr(other, name)
                if here != there:
                    hint = "; load the same base model as the run" if name == "digest" else ""
                    raise ManifestMismatchError(
                        f"the {name} of trainable parameter {ours.name!r} differs: "
                        f"ours {here!s}, theirs {there!s}{hint}"
                    )
        raise ManifestMismatchError(
            f"the number of trainable parameters differs: ours {len(mine)}, theirs {len(theirs)}"
        )
