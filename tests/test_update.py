"""Updates give the same bits in any order and any grouping, and are taken back exactly."""

from __future__ import annotations

import contextlib
import copy
import itertools
import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor, nn

import models
from shared_seed import codec, exact, lookup, update
from shared_seed.errors import GridError, HeadroomError
from shared_seed.grid import LIMIT, MOST_UNITS
from shared_seed.messages import Message, as_float32
from shared_seed.noise import Family, Purpose, Sample, reference, stream_key
from shared_seed.perturbation import Perturbation
from shared_seed.replica import Replica

RUN = bytes.fromhex("00112233445566778899aabbccddeeff")


class Layers(nn.Module):
    """Matrices, vectors, a kernel and a number of its own, of sizes that no block divides."""

    def __init__(self, rows: int, columns: int, kernel: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.linear = nn.Linear(columns, rows)
        self.embed = nn.Embedding(rows, columns)
        self.conv = nn.Conv1d(2, kernel, 3)
        self.own = nn.Parameter(torch.zeros(kernel))
        for p in self.parameters():
            p.data = torch.randn(p.shape, generator=generator)


def slow_units(replica: Replica, messages: Sequence[Message]) -> list[list[int]]:
    """What the weights are after messages, in Python integers of grid units, straight from the definitions."""
    manifest = replica.manifest
    out = []
    for t in replica.weights:
        values = [round(float(x) / t.grid.unit) for x in t.values.flatten().double()]
        assert all(float(x) == v * t.grid.unit for x, v in zip(t.values.flatten().double(), values, strict=True))
        for message in messages:
            key = stream_key(manifest.run_bytes, message.stream.to_bytes())
            for index, code in enumerate(message.codes):
                if code & 0x7F == 0x7F:
                    continue
                sample = Sample(key, message.number, index)
                step = -message.learning_rate * codec.decode(code, manifest.scale_exponent)
                units = t.grid.units(step, reference.block(sample, t.index, Purpose.ROUNDING)[0])
                for e, sign in enumerate(slow_direction(t.family, sample, t.index, tuple(t.parameter.shape))):
                    values[e] += units * sign
        out.append(values)
    return out


def slow_direction(family: Family, sample: Sample, tensor: int, shape: tuple[int, ...]) -> list[int]:
    if family is Family.DENSE:
        return reference.signs(sample, tensor, Purpose.DENSE, int(np.prod(shape)))
    u = reference.signs(sample, tensor, Purpose.ROW, shape[0])
    v = reference.signs(sample, tensor, Purpose.COLUMN, shape[1])
    return [a * b for a, b in itertools.product(u, v)]


def in_units(replica: Replica) -> list[list[int]]:
    return [[int(x) for x in (t.values.flatten().double() / t.grid.unit)] for t in replica.weights]


@st.composite
def layers(draw: st.DrawFn) -> Layers:
    sizes = st.integers(1, 9)
    return Layers(draw(sizes), draw(sizes), draw(st.integers(1, 50)), draw(st.integers(0, 99)))


@st.composite
def histories(draw: st.DrawFn) -> list[Message]:
    """Messages of several streams, each a gapless beginning."""
    rates = st.one_of(st.sampled_from([0.0, 1.0, 2.0**-20]), st.floats(1e-7, 1e-2)).map(as_float32)
    # Magnitudes up to 16, so that no history can leave the grid.
    codes = st.one_of(st.integers(0, 0x58), st.integers(0x80, 0xD8), st.sampled_from([0x7F, 0xFF]))
    out = []
    for writer in draw(st.lists(st.integers(0, 255), min_size=1, max_size=3, unique=True)):
        for number in range(draw(st.integers(1, 3))):
            found = draw(st.lists(codes, min_size=1, max_size=4))
            rate = draw(rates)
            # With a learning rate of 1, a code moves by at most one: keep such messages few and small.
            out.append(models.message(writer, number, rate, bytes(c & 0xB7 if rate > 0.5 else c for c in found)))
    return out


@given(model=layers(), messages=histories(), shuffler=st.randoms(use_true_random=False))
def test_any_order_and_grouping_gives_the_same_bits_and_so_does_slow_arithmetic(
    model: Layers, messages: list[Message], shuffler: random.Random
) -> None:
    start = models.replica_of(model)
    expected = slow_units(start, messages)

    all_at_once = models.replica_of(copy.deepcopy(model))
    all_at_once.apply(messages)
    assert in_units(all_at_once) == expected

    one_by_one = models.replica_of(copy.deepcopy(model))
    for message in shuffler.sample(messages, len(messages)):
        one_by_one.apply([message])
    assert one_by_one.digest() == all_at_once.digest()

    seen: set[Message] = set()
    in_groups = models.replica_of(copy.deepcopy(model))
    arrivals = shuffler.sample(messages * 2, 2 * len(messages))
    while arrivals:
        count = shuffler.randint(1, len(arrivals))
        in_groups.apply([m for m in dict.fromkeys(arrivals[:count]) if m not in seen])
        seen.update(arrivals[:count])
        arrivals = arrivals[count:]
    assert in_groups.digest() == all_at_once.digest()
    assert in_groups.messages == len(messages)
    assert in_groups.gradients == sum(len(m.codes) for m in messages)


@given(model=layers(), messages=histories(), shuffler=st.randoms(use_true_random=False))
def test_taking_back_restores_the_first_bits(
    model: Layers, messages: list[Message], shuffler: random.Random
) -> None:
    replica = models.replica_of(model)
    before = models.bits(model)
    replica.apply(messages)
    for message in shuffler.sample(messages, len(messages)):
        replica.apply([message], sign=-1)
    assert models.bits(model) == before
    assert (replica.messages, replica.gradients) == (0, 0)


def test_values_that_snap_to_zero_from_below_come_back_with_the_same_bits() -> None:
    model = nn.LayerNorm(3)
    model.bias.data.copy_(torch.tensor([-1e-12, -0.0, 1e-12]))
    replica = models.replica_of(model)
    before = models.bits(model)
    replica.apply([models.message(1, 0, 0.5, bytes([0x38]))])
    replica.apply([models.message(1, 0, 0.5, bytes([0x38]))], sign=-1)
    assert models.bits(model) == before


@pytest.mark.parametrize("family", [Family.RANK1, Family.DENSE])
@pytest.mark.parametrize("scale_exponent", [-6, 0, 3])
def test_one_sample_moves_by_its_learning_rate_times_its_value(family: Family, scale_exponent: int) -> None:
    model = nn.Linear(5, 4, bias=False)
    replica = models.replica_of(model, scale_exponent, ("weight",) if family is Family.DENSE else ())
    before = model.weight.detach().clone()
    replica.apply([models.message(3, 0, 2.0**-5, bytes([0x40]))])
    key = stream_key(RUN, models.stream(3).to_bytes())
    signs = torch.tensor(slow_direction(family, Sample(key, 0, 0), 0, (4, 5))).view(4, 5)
    assert torch.equal(model.weight.detach(), before - 2.0**-5 * 2.0 * 2.0**scale_exponent * signs)


@pytest.mark.parametrize("code", [0x7F, 0xFF, 0x00, 0x80])
def test_abstentions_and_zeros_move_nothing(code: int) -> None:
    model = Layers(3, 4, 5, 0)
    replica = models.replica_of(model)
    before = models.bits(model)
    replica.apply([models.message(1, 0, 1.0, bytes([code] * 3))])
    assert models.bits(model) == before
    assert replica.gradients == 3


def test_an_abstention_does_not_shift_the_other_directions_of_its_message() -> None:
    with_it, without = nn.Linear(4, 4), nn.Linear(4, 4)
    without.load_state_dict(with_it.state_dict())
    models.replica_of(with_it).apply([models.message(1, 0, 0.01, bytes([0x38, 0x7F, 0x40]))])
    models.replica_of(without).apply([models.message(1, 0, 0.01, bytes([0x38, 0x00, 0x40]))])
    assert models.bits(with_it) == models.bits(without)


@pytest.mark.parametrize("extra", [-1, 0, 1, update.MOST_AT_ONCE + 3])
def test_more_samples_than_one_pass_takes(extra: int) -> None:
    model = Layers(3, 5, 7, 1)
    codes = random.Random(4).choices([c for c in range(256) if c & 0x7F < 0x50], k=update.MOST_AT_ONCE + extra)
    together = [
        models.message(w, 0, 2.0**-14, bytes(codes[w * 200 :][:200])) for w in range(-(-len(codes) // 200))
    ]
    replica = models.replica_of(model)
    expected = slow_units(replica, together)
    replica.apply(together)
    assert in_units(replica) == expected


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_reduced_precision_around_an_update_changes_nothing(precision: str) -> None:
    plain = Layers(40, 70, 30, 2)
    reduced = copy.deepcopy(plain)
    messages = [models.message(w, 0, 0.011, bytes([0x35, 0xB9, 0x41, 0x2A])) for w in range(5)]
    models.replica_of(plain).apply(messages)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            exact.check_device(torch.device("cpu"))
            models.replica_of(reduced).apply(messages)
            assert torch.is_autocast_enabled("cpu")
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)
    assert models.bits(plain) == models.bits(reduced)


def test_reduced_precision_of_one_backend_is_put_aside_and_back() -> None:
    backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    before = [backend.fp32_precision for backend in backends]
    try:
        backends[0].fp32_precision, backends[1].fp32_precision = "tf32", "bf16"
        exact.check_device(torch.device("cpu"))
        with exact.exact_products():
            assert [backend.fp32_precision for backend in backends] == ["ieee", "ieee"]
        assert [backend.fp32_precision for backend in backends] == ["tf32", "bf16"]
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize("kept", [8, 11, 16], ids=["bf16", "TF32", "two bf16"])
def test_a_device_whose_products_keep_fewer_bits_of_a_factor_is_refused(
    kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rounded(values: Tensor) -> Tensor:
        mantissa, exponent = torch.frexp(values)
        return torch.ldexp(torch.round(mantissa * 2**kept) / 2**kept, exponent)

    plain = Tensor.addmm_
    monkeypatch.setattr(Tensor, "addmm_", lambda total, u, v: plain(total, rounded(u), rounded(v)))
    with pytest.raises(GridError, match="round small integers"):
        exact.check_device(torch.device("cpu"))


def test_processors_without_the_look_up_get_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up = Layers(300, 77, 30, 3)
    multiplied = copy.deepcopy(looked_up)
    messages = [models.message(w, 0, 0.001, bytes([0x35, 0xB9, 0x41, 0x2A])) for w in range(9)]
    assert lookup.available() or not lookup.host_has_avx512()
    models.replica_of(looked_up).apply(messages)
    monkeypatch.setattr(lookup, "available", lambda: False)
    models.replica_of(multiplied).apply(messages)
    assert models.bits(looked_up) == models.bits(multiplied)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_pieces_and_threads_do_not_change_bits(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, cut = Layers(700, 77, 3000, 3), Layers(700, 77, 3000, 3)
    messages = [models.message(w, 0, 0.001, bytes([0x35, 0xB9, 0x41, 0x2A])) for w in range(9)]
    models.replica_of(whole).apply(messages)
    monkeypatch.setattr(exact, "PIECE", 10_000)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        models.replica_of(cut).apply(messages)
    finally:
        torch.set_num_threads(before)
    assert models.bits(whole) == models.bits(cut)


def test_updates_need_no_grad_mode_of_their_own() -> None:
    model = nn.Linear(3, 3)
    with torch.enable_grad():
        models.replica_of(model).apply([models.message(1, 0, 0.01, bytes([0x38]))])
    assert all(p.requires_grad and p.grad is None and p.grad_fn is None for p in model.parameters())


def test_several_threads_give_the_same_bits() -> None:
    one = nn.Linear(700, 400)
    two = copy.deepcopy(one)
    messages = [models.message(1, 0, 0.01, bytes([0x38, 0xC1]))]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        models.replica_of(one, dense=("weight",)).apply(messages)
        torch.set_num_threads(3)
        models.replica_of(two, dense=("weight",)).apply(messages)
    finally:
        torch.set_num_threads(before)
    assert models.bits(one) == models.bits(two)


# The edge of the grid


def pushes(replica: Replica, tensor: int, count: int, up: bool = True) -> list[Message]:
    """Messages of one sample that each move the only element of a dense tensor by the largest step there is."""
    out = []
    for number in range(count):
        key = stream_key(RUN, models.stream(9).to_bytes())
        (sign,) = reference.signs(Sample(key, number, 0), tensor, Purpose.DENSE, 1)
        # Weights move against the code; 0x7E is 448, the largest.
        out.append(models.message(9, number, 1.0, bytes([0x7E if (sign < 0) is up else 0xFE])))
    return out


class Numbers(nn.Module):
    """A matrix that random steps walk about, and one number that :func:`pushes` drives."""

    def __init__(self) -> None:
        super().__init__()
        self.own = nn.Parameter(torch.ones(1))
        self.linear = nn.Linear(24, 24)


@pytest.mark.parametrize("family", [Family.RANK1, Family.DENSE])
def test_an_update_that_leaves_the_grid_changes_nothing(family: Family) -> None:
    model = Numbers()
    replica = models.replica_of(model, dense=("linear.weight",) if family is Family.DENSE else ())
    before = models.bits(model)
    with pytest.raises(HeadroomError, match=r"'own' has reached 7.*grid ends at 8"):
        replica.apply(pushes(replica, 0, 40))
    assert models.bits(model) == before
    assert (replica.messages, replica.gradients) == (0, 0)


def test_the_step_before_the_edge_is_taken_and_the_next_refused() -> None:
    model = Numbers()
    replica = models.replica_of(model)
    unit = replica.weights.tensors[0].grid.unit
    messages = pushes(replica, 0, 40)
    taken = 0
    with pytest.raises(HeadroomError):  # noqa: PT012
        for message in messages:
            replica.apply([message])
            taken += 1
    reached = float(model.own.detach()) / unit
    assert reached == 1 / unit + taken * MOST_UNITS
    assert reached + MOST_UNITS >= LIMIT - models.EPSILON / unit


def test_weights_as_near_the_edge_as_updates_bring_them_can_still_be_probed() -> None:
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1 + 2.0**-21)
    replica = models.replica_of(model, dense=("weight",))
    key = stream_key(RUN, models.stream(9).to_bytes())
    # To the last unit before the edge: steps of 2**20 units, then halves, quarters and so on.
    steps = [2.0**20] * 13 + [2.0**e for e in range(19, 0, -1)]
    for number, step in enumerate(steps):
        (sign,) = reference.signs(Sample(key, number, 0), 0, Purpose.DENSE, 1)
        code = 0xB8 if sign > 0 else 0x38
        with contextlib.suppress(HeadroomError):
            replica.apply([models.message(9, number, step * 2.0**-21, bytes([code]))])
    before = models.bits(model)
    assert float(model.weight.detach()) > 7.9
    for number in range(8):
        with Perturbation(replica.weights, models.EPSILON).along(Sample(1, number, 0)) as move:
            move(+1)
            move(-1)
        assert models.bits(model) == before


@pytest.mark.parametrize("family", [Family.RANK1, Family.DENSE])
@pytest.mark.parametrize("turns", [(-14, 14), (14, -14), (-14, 14, -14), (3, -3, 14)])
def test_giving_up_after_several_groups_restores_every_bit(family: Family, turns: tuple[int, ...]) -> None:
    # At the end of each pass the only weight is at a turn, in steps of 2**20 units; then it leaves.
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1 + 2.0**-21)
    replica = models.replica_of(model, dense=("weight",) if family is Family.DENSE else ())
    assert float(model.weight.detach()) / replica.weights.tensors[0].grid.unit == 2 * MOST_UNITS + 1
    ways: list[int] = []
    position = 2
    for turn in turns:
        there = [1 if turn > position else -1] * abs(turn - position)
        idle = update.MOST_AT_ONCE - len(there)
        ways += [1, -1] * (idle // 2) + there
        position = turn
    key = stream_key(RUN, models.stream(9).to_bytes())
    messages = []
    for number, way in enumerate([*ways, *[1] * 40]):
        (sign,) = slow_direction(family, Sample(key, number, 0), 0, (1, 1))
        messages.append(models.message(9, number, 1.0, bytes([0xFE if sign == way else 0x7E])))
    before = models.bits(model)
    with pytest.raises(HeadroomError):
        replica.apply(messages)
    assert models.bits(model) == before


@pytest.mark.parametrize("dense", [(), ("weight",)])
@pytest.mark.parametrize("seed", range(6))
def test_giving_up_on_a_matrix_restores_every_bit(dense: tuple[str, ...], seed: int) -> None:
    model = nn.Linear(33, 17, bias=False)
    replica = models.replica_of(model, dense=dense)
    before = models.bits(model)
    codes = random.Random(seed).choices([0x7E, 0xFE], k=255)
    with pytest.raises(HeadroomError):
        replica.apply([models.message(seed, n, 1.0, bytes(codes)) for n in range(40)])
    assert models.bits(model) == before


def test_a_bound_that_only_looks_exceeded_is_measured_again() -> None:
    model = Numbers()
    replica = models.replica_of(model)
    there = pushes(replica, 0, 4)
    start = models.bits(model)
    for _ in range(20):
        replica.apply(there)
        replica.apply(there, sign=-1)
    assert models.bits(model) == start
    own = replica.weights.tensors[0]
    assert own.bound < LIMIT


def test_a_bound_is_never_below_the_weights() -> None:
    model = Layers(5, 6, 9, 3)
    replica = models.replica_of(model)
    generator = random.Random(1)
    for number in range(30):
        replica.apply([models.message(1, number, 0.001, generator.randbytes(3))])
        for t in replica.weights:
            assert float(t.values.abs().max()) / t.grid.unit <= t.bound


@hypothesis_settings(max_examples=20)
@given(seed=st.integers(0, 999))
def test_after_giving_up_a_replica_goes_on_like_one_that_never_tried(seed: int) -> None:
    tried, fresh = Numbers(), Numbers()
    fresh.load_state_dict(tried.state_dict())
    one, two = models.replica_of(tried), models.replica_of(fresh)
    with pytest.raises(HeadroomError):
        one.apply(pushes(one, 0, 40))
    later = [models.message(2, 0, 0.01, random.Random(seed).randbytes(9))]
    one.apply(later)
    two.apply(later)
    assert one.digest() == two.digest()
