"""Choice, generation and chat: batches, losses and figures that slow ways confirm."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import models
from shared_seed.chat import REFUSED, REWRITTEN, Chat, shorter_and_shorter
from shared_seed.choice import MultipleChoice
from shared_seed.continuations import Continuations
from shared_seed.examples import Choice, Conversation, Question
from shared_seed.generation import Generation
from shared_seed.task import ChatTask, ChoiceTask, GenerationTask
from shared_seed.templates import Filled
from shared_seed.text_task import IGNORED

WORDS = ["the", "film", "was", "it", "plot", "dull", "bright", "fine"]


def choice(model: Any, **changes: Any) -> MultipleChoice:
    given_ = {"kind": "choice", "prompt": "{text}", "candidates": "options", "label": "label", "most_tokens": 12}
    return MultipleChoice(ChoiceTask(**(given_ | changes)), models.tokenizer(), model)


def generation(model: Any, **changes: Any) -> Generation:
    given_ = {"kind": "generation", "prompt": "{text}", "answers": "answers", "stop": " film"}
    task = GenerationTask(**(given_ | {"most_new_tokens": 4, "most_tokens": 12} | changes))
    return Generation(task, models.tokenizer(), model)


def chat(model: Any, template: str | None = None, **changes: Any) -> Chat:
    tokenizer = models.tokenizer()
    tokenizer.chat_template = template
    return Chat(ChatTask(**({"kind": "chat", "messages": "messages"} | changes)), tokenizer, model)


def sentence(draw: random.Random, most: int) -> str:
    return " ".join(draw.choices(WORDS, k=draw.randint(1, most)))


def choices(count: int = 9) -> list[Choice]:
    draw = random.Random(3)
    return [
        Choice(Filled(sentence(draw, 6)), tuple(" " + sentence(draw, 4) for _ in range(2 + i % 2)), (i % 2,))
        for i in range(count)
    ]


@pytest.fixture(params=["llama", "opt", "adapter"])
def model(request: pytest.FixtureRequest) -> Any:
    builders = {"llama": models.llama, "opt": models.opt, "adapter": lambda: models.lora(models.llama())}
    return builders[request.param]().eval()


@torch.no_grad()
def slow_losses(model: Any, prompt: list[int], answer: list[int]) -> list[float]:
    """Each token's loss, one row without padding."""
    logits = model(torch.tensor([prompt + answer])).logits[0].double().log_softmax(-1)
    return [-float(logits[len(prompt) + i - 1, token]) for i, token in enumerate(answer)]


@pytest.mark.parametrize("scored", ["mean", "total"])
def test_the_likeliest_candidate_is_chosen_as_a_slow_count_does(model: Any, scored: str) -> None:
    task = choice(model, scored=scored)
    features = task.encode(choices())
    right, losses = 0, []
    for feature in features:
        each = [slow_losses(model, feature["prompt"], candidate) for candidate in feature["candidates"]]
        values = [sum(e) / (len(e) if scored == "mean" else 1) for e in each]
        right += values.index(min(values)) in feature["right"]
        losses += each[feature["right"][0]]
    for rows in (1, 4, 100):
        found = task.evaluate(model, features, False, rows=rows)
        assert (found.accuracy, found.rows) == (right / len(features), len(features))
        assert found.loss == pytest.approx(sum(losses) / len(losses), rel=1e-4)


@torch.no_grad()
def test_the_loss_of_a_batch_is_that_of_the_right_tokens_alone(model: Any) -> None:
    task = choice(model)
    features = task.encode(choices())
    batch = task.collate(features)
    assert batch["input_ids"].shape[0] == batch["labels"].shape[0] == len(features)
    slow = [loss for f in features for loss in slow_losses(model, f["prompt"], f["targets"])]
    assert float(task.batch_loss(model, batch)) == pytest.approx(sum(slow) / len(slow), rel=1e-4)
    inputs = {name: value for name, value in batch.items() if name not in ("labels", "logits_to_keep")}
    own = torch.full_like(batch["input_ids"], IGNORED)
    own[:, -batch["labels"].shape[1] :] = batch["labels"]
    assert float(model(**inputs, labels=own).loss) == pytest.approx(sum(slow) / len(slow), rel=1e-4)


def test_candidates_share_the_prompt_that_the_longest_leaves_room_for() -> None:
    task, dropped = choice(models.llama(), most_tokens=5), Counter[str]()
    some = [
        Choice(Filled("the film was dull"), (" fine", " it was bright"), (0,)),
        Choice(Filled("the film"), (" it was fine it was", " dull"), (1,)),
    ]
    (feature,) = task.encode(some, dropped)
    ids = models.tokenizer().convert_tokens_to_ids
    assert feature["prompt"] == ids(["was", "dull"])
    assert feature["input_ids"] == ids(["was", "dull", "fine"])
    assert dropped == {"too long": 1}


@torch.no_grad()
def test_answers_are_decoded_greedily_up_to_the_stop(model: Any) -> None:
    task = generation(model)
    draw = random.Random(5)
    features = task.encode([Question(Filled(sentence(draw, 7)), (sentence(draw, 2),)) for _ in range(7)])
    tokenizer = models.tokenizer()
    ends = {tokenizer.eos_token_id, *tokenizer.convert_tokens_to_ids(["film"])}
    lengths = set()
    for feature, said in zip(features, task.answers(model, features, False), strict=True):
        ids = list(feature["prompt"])
        for _ in range(4):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] in ends:
                break
        new = [token for token in ids[len(feature["prompt"]) :] if token not in ends]
        assert said.split() == tokenizer.decode(new, skip_special_tokens=True).split()
        lengths.add(len(new))
    assert lengths != {0}


def test_generated_answers_are_scored_against_all_that_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    model = models.opt()
    task = generation(model)
    features = task.encode([Question(Filled("the film"), ("fine", "bright plot")) for _ in range(4)])
    said = iter([["The Fine", "bright", "", "plot bright"]])
    monkeypatch.setattr(task, "answers", lambda *_: next(said))
    found = task.evaluate(model, features, False)
    assert (found.exact_match, found.rows, found.accuracy) == (0.25, 4, None)
    assert found.f1 == pytest.approx((1 + 2 / 3 + 0 + 1) / 4)


def test_answers_too_long_to_generate_are_left_out() -> None:
    dropped = Counter[str]()
    some = [Question(Filled("it"), ("the plot was it",)), Question(Filled("it"), ("the plot", "x"))]
    (feature,) = generation(models.llama()).encode(some, dropped)
    assert feature["answers"] == ("the plot", "x")
    assert dropped == {"with an answer that is too long": 1}


@pytest.mark.parametrize("kind", ["choice", "generation", "chat"])
def test_evaluation_leaves_modes_weights_and_generators_alone_and_tells_progress(kind: str) -> None:
    model = models.opt().train()
    model.model.decoder.layers[0].eval()
    task: Continuations
    if kind == "choice":
        task = choice(model)
        features = task.encode(choices())
    elif kind == "generation":
        task = generation(model)
        features = task.encode([Question(Filled(w), (w,)) for w in WORDS])
    else:
        task = chat(model)
        features = task.encode([Conversation((("user", w), ("assistant", w))) for w in WORDS])
    modes = [m.training for m in model.modules()]
    before, generators = models.bits(model), models.generators()
    told: list[int] = []
    first = task.evaluate(model, features, True, told.append, rows=3)
    assert task.evaluate(model, features, True, rows=3) == first
    assert told == sorted(told)
    assert told[-1] == len(features)
    assert [m.training for m in model.modules()] == modes
    assert models.bits(model) == before
    assert models.generators() == generators


# Chat

MARKED = "{% for m in messages %}[{{ m.role }}] {{ m.content }} [END] {% endfor %}"
FORGETFUL = "{% for m in messages %}{% if loop.last or m.role == 'user' %}{{ m.content }} {% endif %}{% endfor %}"
STRICT = "{% if messages[0].role != 'user' %}{{ raise_exception('no') }}{% endif %}" + MARKED
TALK = Conversation((("user", "it"), ("assistant", "fine"), ("user", "the film"), ("assistant", "dull plot")))


def trained(task: Chat, *some: Conversation) -> tuple[list[str], Counter[str]]:
    dropped = Counter[str]()
    features = task.encode(some, dropped)
    texts = [task.tokenizer.decode([t for t in f["targets"] if t != IGNORED]) for f in features]
    for feature in features:
        assert len(feature["targets"]) <= len(feature["input_ids"])
        pairs = zip(feature["targets"], feature["input_ids"][-len(feature["targets"]) :], strict=True)
        assert all(target in (IGNORED, token) for target, token in pairs)
    return texts, dropped


def test_the_assistants_words_alone_are_trained_on_in_any_template() -> None:
    model = models.llama()
    assert "fine" in trained(chat(model), TALK)[0][0]
    (said,), _ = trained(chat(model, MARKED), TALK)
    assert "fine [END]" in said
    assert "dull plot [END]" in said
    assert "film" not in said
    (said,), _ = trained(chat(model, FORGETFUL), TALK)
    assert said.split() == ["dull", "plot"]


def test_conversations_that_a_template_cannot_show_are_left_out_by_reason() -> None:
    model = models.llama()
    system = Conversation((("system", "fine"), *TALK.messages))
    texts, dropped = trained(chat(model, STRICT), TALK, system)
    assert len(texts) == 1
    assert dropped == {REFUSED: 1}
    assert trained(chat(model, "{{ messages[-1].content }} nothing {{ messages | length }}"), TALK) == (
        [],
        {REWRITTEN: 1},
    )


def test_a_long_conversation_loses_its_first_exchanges_and_keeps_the_system() -> None:
    messages = (("system", "s"), *TALK.messages)
    assert [list(m) for m in shorter_and_shorter(messages)] == [
        list(messages),
        [("system", "s"), *TALK.messages[2:]],
    ]
    task = chat(models.llama(), MARKED, most_tokens=16)
    texts, dropped = trained(task, TALK, Conversation((("user", "film " * 20), ("assistant", "fine"))))
    (said,) = texts
    assert "dull plot" in said
    assert "fine" not in said
    assert dropped == {"too long": 1}


# Truncation


@given(
    before=st.lists(st.sampled_from(WORDS), max_size=4),
    long=st.lists(st.sampled_from(WORDS), min_size=1, max_size=20),
    after=st.lists(st.sampled_from(WORDS), max_size=4),
    room=st.integers(0, 5),
    most=st.integers(2, 14),
    cut=st.booleans(),
)
def test_a_prompt_fits_and_keeps_its_end_and_as_much_of_the_rest_as_there_is_room_for(
    before: list[str], long: list[str], after: list[str], room: int, most: int, cut: bool
) -> None:
    task = choice(LLAMA, most_tokens=most)
    parts = [" ".join(words) for words in (before, long, after)]
    start = len(parts[0]) + 1
    prompt = Filled(" ".join(parts), (start, start + len(parts[1])) if cut else None)
    ids = task.tokenizer.convert_tokens_to_ids
    whole, limit = ids([*before, *long, *after]), most - room
    (found,) = task.prompts([prompt], [room])
    if len(whole) <= limit:
        assert found == whole
    elif not cut:
        assert found == (whole[-limit:] if limit > 0 else None)
    elif limit < len(before) + len(after):
        assert found is None
    else:
        kept = limit - len(before) - len(after)
        # A word may be cut within, and is then unknown to this tokenizer, only where it is the only one.
        assert found is not None
        assert len(found) in (limit, limit - 1) if kept else len(found) == limit
        assert found[: len(before)] == ids(before)
        assert found[len(found) - len(after) :] == ids(after)


LLAMA = models.llama()
