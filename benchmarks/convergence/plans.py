"""The parts of the lab."""

from __future__ import annotations

from dataclasses import replace

from convergence.spec import Spec

LANGUAGE = Spec(model="smollm2", corpus="rotten-tomatoes", passes=240)
"""A language model that is asked for a word."""

HEAD = Spec(model="minilm", corpus="rotten-tomatoes", passes=480)
"""An encoder with a fresh head."""

DEFAULT = LANGUAGE.promise
SEEDS = range(3)
TASKS = ("rotten-tomatoes", "sms", "news")


def _seeded(*specs: Spec) -> list[Spec]:
    return [replace(spec, seed=seed) for seed in SEEDS for spec in specs]


PLANS: dict[str, list[Spec]] = {
    # What MeZO reaches, at several learning rates, and we with the one that is found.
    "mezo": _seeded(
        *(
            replace(LANGUAGE, method="mezo", rate=rate, schedule=schedule)
            for schedule in ("constant", "linear")
            for rate in (5e-5, 2e-5, 1e-4)
        ),
        LANGUAGE,
    ),
    # The found learning rate against a search, on all parameters and on an adapter.
    "rate": [
        replace(LANGUAGE, lora=lora, promise=promise or DEFAULT, rate=rate, seed=seed)
        for seed in SEEDS
        for promise, full, adapter in (
            (0.006, None, None),
            (0.02, None, None),
            (0.002, None, None),
            (None, 3e-5, 2e-3),
            (None, 1e-4, 1e-2),
            (None, 1e-5, 3e-4),
        )
        for lora, rate in ((False, full), (True, adapter))
    ],
    # The same on other tasks.
    "tasks": [
        replace(base, corpus=corpus, lora=lora, promise=promise, directions=4, seed=seed, most_tokens=32)
        for seed in SEEDS
        for promise in (0.02, 0.006, 0.06)
        for base in (LANGUAGE, HEAD)
        for corpus in TASKS
        for lora in (False, True)
    ],
    # Directions on the same rows.
    "directions": _seeded(
        *(replace(LANGUAGE, promise=promise, directions=4) for promise in (0.02, 0.01, 0.006)),
        *(replace(LANGUAGE, promise=0.02, directions=directions) for directions in (8, 1, 2)),
    ),
    # The same on an adapter.
    "adapter": _seeded(
        *(replace(LANGUAGE, lora=True, promise=promise, directions=4) for promise in (0.02, 0.006, 0.06))
    ),
    # Kinds of directions, coefficients, batch size.
    "variants": _seeded(
        LANGUAGE,
        replace(LANGUAGE, dense=True),
        replace(LANGUAGE, coefficient="float"),
        replace(LANGUAGE, coefficient="sign"),
        replace(LANGUAGE, batch=4),
        replace(LANGUAGE, batch=64),
        replace(LANGUAGE, epsilon=2.0**-10),
        replace(LANGUAGE, epsilon=2.0**-6),
    ),
    # As the quickstart has it: three peers, each along four directions of its own rows.
    "swarm": _seeded(
        *(replace(LANGUAGE, peers=3, directions=4, promise=promise, passes=120) for promise in (0.01, 0.02))
    ),
    # More peers at as many forward passes of each; messages that come late.
    "peers": _seeded(
        *(replace(HEAD, peers=peers) for peers in (1, 3, 8)),
        *(replace(HEAD, peers=8, behind=behind) for behind in (2, 8)),
    ),
    # The ceiling.
    "backprop": _seeded(
        *(
            replace(LANGUAGE, method="adamw", lora=lora, rate=rate, train_rows=1000)
            for lora, rate in ((False, 1e-5), (True, 1e-3))
        )
    ),
}
