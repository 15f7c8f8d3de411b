"""Shared-seed SPSA as a Lightning strategy, whichever name Lightning goes by."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from shared_seed import authors, notices
from shared_seed.errors import HeadroomError, ModelError
from shared_seed.generators import Generators
from shared_seed.integrations.lightning import checks
from shared_seed.integrations.lightning.display import Display
from shared_seed.integrations.lightning.evaluation import Evaluation, Reward
from shared_seed.integrations.lightning.ranks import Ranks
from shared_seed.launch import open_together, settings_at
from shared_seed.optimizer import Groups
from shared_seed.outcome import Outcome, Step
from shared_seed.rows import RowLosses
from shared_seed.session import Session
from shared_seed.settings import Settings
from shared_seed.snapshot import Snapshot
from shared_seed.training import MOST_ROUNDS, Training

STATE = "shared_seed"
"""The entry of a checkpoint that says where the run stands."""


class PeerStrategy(Ranks):
    """Trains a LightningModule without backprop, together with other peers.

    ``training_step`` is evaluated twice a batch without autograd; the learning rates and schedules of
    ``configure_optimizers`` are used, and its optimizer never allocates state. With ``devices=N``, or under
    torchrun, SLURM and the like, every process is a peer.

    Args:
        settings: how this peer takes part; alone, without listening, by default.
        join: address of a listening peer, or several, to train with; shorthand for the setting.
        listen: address to accept peers at, ``tcp://HOST:PORT``; shorthand for the setting.
        root: name of the submodule that is trained, such as ``"model"``; its parameters are then named in the
            manifest and the log as without Lightning, so that they also replay, and peers also join, without it.
        reward: ``reward(output of training_step, batch)``, any number; it is maximised instead of minimising the
            loss, and need not be differentiable.
        show: add peers, projected gradient and bytes to progress bar and loggers; by default when there are
            others.
        title: what the manifest calls the base model.
        recipe: carried in the manifest for peers that join.
        row_losses: see the attribute; one of its own by default.
        on_step: called with every :class:`~shared_seed.outcome.Step`.
        parts: ``accelerator``, ``parallel_devices``, ``cluster_environment``, ``checkpoint_io`` and
            ``precision_plugin``, as every strategy of Lightning takes them.

    Attributes:
        row_losses: may be told, by whatever computes the loss of a batch, that of each of its rows, where rows
            have one number each, as in classification: the learning rate is then found in a few steps.
        session: the session in progress.
        outcome: how the last training ended.
    """

    strategy_name = "shared_seed"
    optimizers: Any
    precision_plugin: Any

    def __init__(  # noqa: PLR0913 - each is a choice of the user's
        self,
        settings: Settings | None = None,
        *,
        join: str | Sequence[str] = (),
        listen: str | None = None,
        root: str = "",
        reward: Reward | None = None,
        show: bool | None = None,
        title: str = "",
        recipe: dict[str, Any] | None = None,
        row_losses: RowLosses | None = None,
        on_step: Callable[[Session, Step], None] | None = None,
        **parts: Any,
    ) -> None:
        # Lightning's single-device strategy would settle on one device here; the Trainer says which later.
        self.lightning("strategies").ParallelStrategy.__init__(self, **parts)
        changes: dict[str, Any] = {"listen": listen} if listen else {}
        if join:
            changes["join"] = (join,) if isinstance(join, str) else tuple(join)
        self.settings = replace(settings or Settings(), **changes)
        self.root = root
        self.reward = reward
        self.title = title
        self.recipe = recipe
        self.row_losses = row_losses or RowLosses()
        self.on_step = on_step
        self.session: Session | None = None
        self.outcome: Outcome | None = None
        self._groups: Groups | None = None
        self._resume: Snapshot | None = None
        self._last: Snapshot | None = None
        self._low: dict[str, Tensor] = {}
        self._told: set[str] = set()
        self._show = show
        self._display = Display(False)

    # Setting up

    def setup(self, trainer: Any) -> None:
        """Set up as ever, refuse what this strategy cannot do, and share the initial weights."""
        super().setup(trainer)  # type: ignore[misc]
        self._last = None
        if trainer.state.fn == "fit" and self._trains():
            checks.check(trainer, self)
            for notice in checks.without_effect(trainer):
                self._inform(notice)
        self.share_weights()

    def _trains(self) -> bool:
        """Whether there is anything to train; without an optimizer, batches are only evaluated, as ever."""
        module = self.lightning_module
        return not (module.automatic_optimization and _is_mock(self.optimizers))

    # Training

    def on_train_start(self) -> None:
        """Put the weights on their grid and meet the others, before the first batch."""
        super().on_train_start()  # type: ignore[misc]
        # A callback may unfreeze parameters when the first epoch starts; then the first batch is early enough.
        if self._trains() and any(p.requires_grad for g in self.optimizers[0].param_groups for p in g["params"]):
            self._begun()

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """One probe: ``training_step`` at both sides; counts and logs once."""
        step = super().training_step  # type: ignore[misc]
        if not self._trains():
            return step(*args, **kwargs)
        session = self._begun()
        if session.is_over():
            return None
        evaluation = Evaluation(self.lightning_module, step, args, self.reward)
        measured = session.measure(evaluation, self.precision_plugin.train_step_context())
        broken = evaluation.outputs[0] is not None and not math.isfinite(measured.gradient)
        if broken and torch.is_anomaly_enabled():
            raise ModelError(
                f"detect_anomaly: the loss is {measured.plus} on one side of the probe and {measured.minus} on "
                "the other; expected finite numbers"
            )
        return evaluation.result(self.root_device)

    def optimizer_step(
        self, optimizer: Optimizer, closure: Callable[[], Any], model: nn.Module | None = None, **kwargs: Any
    ) -> Any:
        """Run the last probe of the step as ever; then exchange bytes and update the weights.

        The optimizer's own step finds no gradients, so it moves nothing and allocates nothing.
        """
        result = super().optimizer_step(optimizer, closure, model, **kwargs)  # type: ignore[misc]
        session = self.session
        if session is None:
            return result
        if session.probes and not session.is_over():
            assert self._groups is not None
            self._step(session, self._groups.learning_rate(optimizer))
        if session.is_over():
            self.lightning_module.trainer.should_stop = True
        return result

    def _step(self, session: Session, learning_rate: float) -> None:
        try:
            self._report(session, session.step(learning_rate))
        except HeadroomError as error:
            if not session.settings.private:
                raise
            self._inform(notices.WIDER.format(error=error))
            session.outgrow()
            self._low = session.replica.weights.low()
            self._leave()
            self._begun()

    def _report(self, session: Session, step: Step) -> None:
        for notice in notices.of_step(session, step):
            self._inform(notice)
        self._display.show(self.lightning_module.trainer, session, step)
        if self.on_step is not None:
            self.on_step(session, step)

    def _begun(self) -> Session:
        """The session in progress, or a new one with what is trained now."""
        if self.session is not None and not self.session.probes:
            assert self._groups is not None
            if not self._groups.hold(self.optimizers[0]):
                self._part()
        if self.session is None:
            self.session = self._open()
            others = self.is_distributed or not self.settings.alone
            self._display = Display(others if self._show is None else self._show)
            self._display.attach(self.lightning_module.trainer)
            self.session.begin()
        return self.session

    def _part(self) -> None:
        """Leave a run whose parameters or ratios of learning rates are no longer those that are trained."""
        assert self.session is not None
        if not self.session.settings.private:
            raise ModelError(notices.CHANGED)
        self._low = self.session.replica.weights.low()
        self._leave()

    def _open(self) -> Session:
        model, resume = self._trained(), self._resume
        self._resume = None
        rounds = self._rounds(resume)
        found = self.settings.promise is not None and self.recipe is None
        self._groups = Groups.of(self.optimizers[0], model, rounds, found=found)
        for notice in self._groups.notices:
            self._inform(notice)
        training = Training(
            rounds=rounds,
            title=self.title,
            recipe=self.recipe,
            row_losses=self.row_losses,
            groups=self._groups,
            evaluated=self.lightning_module,
            resume=resume,
            low=self._low,
        )
        self._low = {}
        return open_together(model, self.settings, training, self.place, self._inform)

    def _rounds(self, resume: Snapshot | None) -> int:
        """Steps that the run will have: those of the whole training, or what is left of it for a new run."""
        trainer = self.lightning_module.trainer
        total = trainer.estimated_stepping_batches
        if not 0 < total < MOST_ROUNDS:
            return MOST_ROUNDS
        return max(1, int(total) - (0 if resume else trainer.global_step))

    def _trained(self) -> nn.Module:
        """The module whose parameters the run is about."""
        module: nn.Module = self.lightning_module.get_submodule(self.root)
        inside = {id(p) for p in module.parameters()}
        outside = [
            n for n, p in self.lightning_module.named_parameters() if p.requires_grad and id(p) not in inside
        ]
        if outside:
            raise ModelError(
                f"trainable parameter {outside[0]!r} lies outside root={self.root!r} and would not be trained; "
                "choose another root, or freeze it"
            )
        return module

    def _inform(self, notice: str) -> None:
        """Show a line to the user, once."""
        if notice not in self._told:
            self._told.add(notice)
            self.lightning("utilities.rank_zero").rank_zero_info(notice)

    # The end

    def on_train_end(self) -> None:
        """Exchange the last bytes."""
        if self.session is not None:
            self.outcome = self.session.finish()
            self._last = self.session.snapshot()
            self._leave()

    def on_exception(self, exception: BaseException) -> None:
        """Leave the swarm with clean weights."""
        self._leave()
        super().on_exception(exception)  # type: ignore[misc]

    def teardown(self) -> None:
        """Leave the swarm if training has not ended it."""
        self._leave()
        super().teardown()  # type: ignore[misc]

    def _leave(self) -> None:
        self._display.detach()
        if self.session is not None:
            self.session.close()
            self.session = None

    # Checkpoints

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Write a checkpoint; beside the state of the Trainer, where the run and every generator stands."""
        snapshot = self.session.snapshot() if self.session else self._last
        if snapshot is not None and "optimizer_states" in checkpoint:
            logged, note = snapshot.pack()
            state: dict[str, Any] = {"log": _as_tensor(logged), "peer": _as_tensor(note)}
            state |= {"generators": self.gather(Generators().pack()), "peers": self.gather(_as_tensor(note))}
            checkpoint[STATE] = state | ({"low": dict(snapshot.low)} if snapshot.low else {})
        super().save_checkpoint(checkpoint, filepath, storage_options)  # type: ignore[misc]

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take up where the run and the generators stood, and the learning rates; moments are not loaded."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=False):
            if isinstance(state, Mapping) and "param_groups" in state:
                optimizer.load_state_dict({"state": {}, "param_groups": state["param_groups"]})
        if STATE in checkpoint:
            entry = checkpoint[STATE]
            packed = _as_bytes(entry["log"]), _as_bytes(entry["peer"])
            snapshot = Snapshot.unpack(*packed, "the checkpoint", entry.get("low"))
            if len(entry["generators"]) == self.world_size:
                Generators.unpack(entry["generators"][self.global_rank]).restore()
            if self.global_rank > 0:
                # The first process wrote the checkpoint, for all of them.
                notes = [_as_bytes(note) for note in entry.get("peers", ())]
                note = notes[self.global_rank] if len(notes) == self.world_size else None
                ours = settings_at(self.place, self.settings)
                snapshot = authors.as_peer(snapshot, ours, note, "the checkpoint")
            self._resume = snapshot


def _is_mock(optimizers: Sequence[Any]) -> bool:
    """Whether Lightning stands in for an optimizer that ``configure_optimizers`` did not return."""
    return [type(optimizer).__name__ for optimizer in optimizers] == ["_MockOptimizer"]


def _as_tensor(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _as_bytes(values: Tensor) -> bytes:
    return bytes(values.cpu().numpy().tobytes())
