"""What the second evaluation of a probe does to a user's counters is taken back."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from typing import Any, ClassVar

import pytest
import torch
import torchmetrics
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from shared_seed.bookkeeping import untouched


class Keeping(nn.Module):
    for_all: ClassVar[list[int]] = [1]

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.count = 3
        self.outputs = [1, 2]
        self.recent = deque([1, 2], maxlen=2)
        self.seen = {"a"}
        self.named = {"a": [1]}
        self.losses: Any = defaultdict(lambda: defaultdict(list))
        self.losses["train"]["loss"].append(0.5)
        self.tally = Counter("aab")
        self.ordered = OrderedDict(a=1, b=2)
        self.register_buffer("rows", torch.zeros(()))


def use(module: Any) -> None:
    module.count += 1
    module.outputs.append(3)
    module.recent.append(3)
    module.seen.add("b")
    module.named["a"].append(2)
    module.named["b"] = []
    module.losses["train"]["loss"].append(0.7)
    module.losses["train"]["tokens"].append(7)
    module.tally.update("bc")
    module.ordered.move_to_end("a")
    module.fresh = 1
    module.for_all.append(2)


def test_counters_and_containers_have_their_contents_back() -> None:
    module = Keeping()
    before = repr({k: v for k, v in vars(module).items() if not k.startswith("_")})
    kept = {name: id(value) for name, value in vars(module).items()}
    with untouched([module]):
        use(module)
        assert module.count == 4
        assert Keeping.for_all == [1, 2]
    assert Keeping.for_all == [1]
    assert repr({k: v for k, v in vars(module).items() if not k.startswith("_")}) == before
    assert {name: id(value) for name, value in vars(module).items()} == kept


def test_they_have_them_back_after_an_error_too() -> None:
    module = Keeping()

    def failing() -> None:
        with untouched([module]):
            use(module)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert module.count == 3
    assert module.named == {"a": [1]}
    assert not hasattr(module, "fresh")


def test_a_deleted_attribute_comes_back() -> None:
    module = Keeping()
    outputs = module.outputs
    with untouched([module]):
        del module.outputs
        module.count = None
    assert module.outputs is outputs
    assert module.count == 3


def test_parameters_and_buffers_are_left_to_others() -> None:
    module = Keeping()
    with untouched([module]), torch.no_grad():
        module.rows += 1
        module.linear.weight.zero_()
    assert float(module.rows) == 1
    assert not module.linear.weight.any()


def test_a_metric_counts_as_if_it_had_not_been_updated() -> None:
    metric = torchmetrics.MeanMetric()
    curve = torchmetrics.CatMetric()
    metric.update(torch.tensor([1.0, 2.0]))
    curve.update(torch.tensor([1.0]))
    with untouched([metric, curve]):
        metric.update(torch.tensor([9.0]))
        curve.update(torch.tensor([9.0]))
    assert float(metric.compute()) == 1.5
    assert float(curve.compute()) == 1.0
    assert metric.update_count == 1


nested = st.recursive(
    st.integers() | st.text(max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)


@given(value=nested, draw=st.randoms(use_true_random=False))
def test_any_nest_of_containers_comes_back(value: Any, draw: Any) -> None:
    owner = nn.Module()
    owner.value = value
    before = repr(value)

    def disturb(item: Any) -> None:
        if isinstance(item, list):
            for inner in list(item):
                disturb(inner)
            draw.shuffle(item)
            item.append("new")
        elif isinstance(item, dict):
            for inner in list(item.values()):
                disturb(inner)
            item["new"] = 1
            if len(item) > 1:
                item.pop(next(iter(item)))

    with untouched([owner]):
        disturb(owner.value)
    assert repr(owner.value) == before
    assert owner.value is value


def test_data_are_not_looked_into() -> None:
    module = Keeping()
    with untouched([module], {"outputs"}):
        module.outputs.append(3)
        module.count += 1
    assert module.outputs == [1, 2, 3]
    assert module.count == 3
