"""The parts of the lab."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from convergence.spec import Spec

LANGUAGE = Spec(
    model="smollm2",
    corpus="rotten-tomatoes",
    passes=240,
    only="*layers*",
    temperature=4,
    cools=True,
    schedule="constant",
    precision="bf16",
)
"""A language model that is asked for a word, as recipes train it: embeddings stay as they are."""

TEN_MINUTES = replace(LANGUAGE, passes=2000, points=8)
"""As many passes as a core with AMX makes in ten minutes."""

FEW_ROWS = replace(LANGUAGE, train_rows=1000)
"""On as few as the ceiling has, for long."""

ADAPTER = replace(LANGUAGE, lora=True, epsilon=2.0**-6)
"""The same with an adapter, whose probes look further."""

UNTOLD = replace(LANGUAGE, rows=False)
"""Where the losses of single rows are not known, as to a script that does not tell them."""

CONSTANT = replace(LANGUAGE, cools=False, schedule="linear", precision="fp32", follow=False, centred=False)
"""At one promise and temperature, by projected gradients as they are from one side, as recipes were before."""

PLAIN = replace(CONSTANT, temperature=1)
"""And on the loss that is tested, as recipes were before that, and as others train."""

HEAD = Spec(model="minilm", corpus="rotten-tomatoes", passes=480, only="*layer*|*classifier*")
"""An encoder with a fresh head."""

SEEDS = range(3)
TASKS = ("rotten-tomatoes", "sms", "news")


def _seeded(*specs: Spec) -> list[Spec]:
    return [replace(spec, seed=seed) for seed in SEEDS for spec in specs]


def _mezo(rate: float, **changes: Any) -> Spec:
    return replace(PLAIN, method="mezo", rate=rate, schedule="constant", **changes)


PLANS: dict[str, list[Spec]] = {
    # What MeZO reaches after 1,000 steps, and we with a third of its passes.
    "mezo": [
        spec
        for seed in SEEDS
        for spec in (
            _mezo(2e-5, passes=2000, points=8, seed=seed),
            replace(LANGUAGE, passes=667, points=8, seed=seed),
            replace(CONSTANT, passes=667, points=8, seed=seed),
            replace(PLAIN, passes=667, points=8, seed=seed),
            _mezo(1e-5, passes=2000, points=8, seed=seed),
            _mezo(5e-5, passes=2000, points=8, seed=seed),
        )
    ],
    # How unevenly rows count.
    "temperature": _seeded(CONSTANT, PLAIN, replace(CONSTANT, temperature=16)),
    # A temperature that falls, over 64 steps or the whole run, where steps do not plan.
    "cooling": _seeded(
        *(
            replace(base, plans=False, **changes)
            for base, changes in (
                (TEN_MINUTES, {"cooling": None}),
                (TEN_MINUTES, {}),
                (TEN_MINUTES, {"cools": False}),
                (LANGUAGE, {}),
                (LANGUAGE, {"cools": False}),
            )
        )
    ),
    # Steps that plan by how many are to come.
    "planning": _seeded(
        *(
            replace(base, plans=plans)
            for base in (
                LANGUAGE,
                replace(LANGUAGE, peers=3, passes=320),
                TEN_MINUTES,
                replace(FEW_ROWS, passes=3000, points=6),
                replace(FEW_ROWS, passes=6000, points=12),
            )
            for plans in (True, False)
        )
    ),
    # Ten minutes of a core with bf16 and of MeZO, an hour; a schedule on top of what is found.
    "long": _seeded(
        TEN_MINUTES,
        _mezo(2e-5, passes=600, points=6),
        replace(LANGUAGE, schedule="linear"),
        replace(FEW_ROWS, passes=10000, points=10),
    ),
    # A promise that follows what rows have in common, and what steps deliver, against a search of constant ones.
    "follow": _seeded(
        *(
            replace(base, corpus=corpus, passes=160, most_tokens=32)
            for corpus in ("sms", "news")
            for base in (LANGUAGE, ADAPTER, UNTOLD)
        ),
        ADAPTER,
        UNTOLD,
        CONSTANT,
        *(
            replace(CONSTANT, corpus=corpus, promise=promise, passes=160, most_tokens=32, lora=lora)
            for lora in (False, True)
            for corpus in ("sms", "news")
            for promise in (0.01, 0.03, 0.1)
        ),
        *(replace(CONSTANT, promise=promise, lora=True) for promise in (0.01, 0.03)),
    ),
    # One by one, what is chosen: which parameters, what batches are made of, directions on the same rows, nats.
    "choices": _seeded(
        PLAIN,
        replace(PLAIN, only="*"),
        replace(PLAIN, only="*", even=False),
        replace(PLAIN, even=False),
        replace(PLAIN, only="*layers.[6-9].*|*layers.[12]?.*"),
        replace(PLAIN, only="*q_proj.weight|*k_proj.weight", even=False),
        replace(PLAIN, promise=0.005),
        replace(PLAIN, promise=0.02),
        replace(PLAIN, directions=1),
        replace(PLAIN, directions=8),
    ),
    # An adapter: where its probes look, and B alone (LoRA-FA), which has no product of two perturbations.
    "adapter": _seeded(
        ADAPTER,
        *(replace(ADAPTER, epsilon=2.0**power) for power in (-8, -7, -5)),
        *(replace(ADAPTER, epsilon=2.0**power, corpus="news", passes=160, most_tokens=32) for power in (-8, -6)),
        replace(ADAPTER, corpus="news", passes=160, most_tokens=32, precision="fp32"),
        replace(CONSTANT, lora=True),
        replace(PLAIN, lora=True),
        replace(PLAIN, lora=True, epsilon=2.0**-6),
        replace(PLAIN, lora=True, epsilon=2.0**-5),
        *(
            replace(PLAIN, lora=True, epsilon=2.0**-5, only="*lora_B*", promise=promise)
            for promise in (0.01, 0.002)
        ),
    ),
    # The found learning rate against a search, on three tasks, all parameters and an adapter.
    "tasks": [
        replace(base, corpus=corpus, promise=promise, follow=follow, seed=seed, most_tokens=32)
        for seed in SEEDS
        for promise, follow in ((0.01, True), (0.01, False), (0.003, False), (0.03, False), (0.1, False))
        for base in (LANGUAGE, ADAPTER, HEAD, replace(HEAD, lora=True))
        for corpus in TASKS
    ],
    # What a byte loses against the number that it rounds, and what a sign does.
    "byte": _seeded(PLAIN, *(replace(PLAIN, coefficient=kind) for kind in ("float", "sign"))),
    # Kinds of directions, batch size, epsilon, precision.
    "variants": _seeded(
        PLAIN,
        replace(PLAIN, dense=True),
        replace(PLAIN, batch=4),
        replace(PLAIN, batch=64),
        replace(PLAIN, epsilon=2.0**-10),
        replace(PLAIN, epsilon=2.0**-6),
        replace(CONSTANT, precision="bf16"),
    ),
    # More peers at as many forward passes of each; messages that come late.
    "peers": _seeded(
        replace(LANGUAGE, peers=8, passes=60),
        replace(LANGUAGE, peers=32, passes=40),
        replace(CONSTANT, peers=8, passes=60),
        replace(PLAIN, peers=8, passes=60),
        replace(PLAIN, peers=8, passes=60, only="*", even=False),
        *(replace(HEAD, peers=peers, follow=False) for peers in (1, 3, 8)),
        *(replace(HEAD, peers=8, behind=behind) for behind in (2, 8)),
    ),
    # The ceiling.
    "backprop": _seeded(
        *(
            replace(PLAIN, method="adamw", lora=lora, rate=rate, train_rows=1000, passes=564)
            for lora, rate in ((True, 1e-3), (False, 1e-5))
        )
    ),
}
