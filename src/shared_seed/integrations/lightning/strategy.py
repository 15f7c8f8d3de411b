"""Shared-seed SPSA as a Lightning strategy: ``Trainer(strategy="shared_seed")``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import SingleDeviceStrategy, StrategyRegistry
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from shared_seed.errors import ModelError
from shared_seed.outcome import Outcome, Step
from shared_seed.session import Session
from shared_seed.settings import Settings
from shared_seed.training import Training


class SharedSeedStrategy(SingleDeviceStrategy):  # type: ignore[misc]
    """Trains a LightningModule without backprop, together with other peers.

    ``training_step`` is evaluated twice a batch without autograd; the learning rate and schedule of
    ``configure_optimizers`` are used, and its optimizer never allocates state.

    Args:
        settings: how this peer takes part; alone, without listening, by default.
        root: name of the submodule that is trained, such as ``"model"``; its parameters are then named in the
            manifest and the log as without Lightning, so that they also replay, and peers also join, without it.
        title: what the manifest calls the base model.
        recipe: carried in the manifest for peers that join.
        on_step: called with every :class:`~shared_seed.session.Step`.
        accelerator, checkpoint_io, precision_plugin: as Lightning passes them.
    """

    strategy_name = "shared_seed"

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        root: str = "",
        title: str = "",
        recipe: dict[str, Any] | None = None,
        on_step: Callable[[Session, Step], None] | None = None,
        accelerator: Any = None,
        checkpoint_io: Any = None,
        precision_plugin: Any = None,
    ) -> None:
        super().__init__("cpu", accelerator, checkpoint_io, precision_plugin)
        self.settings = settings or Settings()
        self.root = root
        self.title = title
        self.recipe = recipe
        self.on_step = on_step
        self.session: Session | None = None
        self.outcome: Outcome | None = None

    @property
    def parallel_devices(self) -> list[torch.device]:
        """Where the model goes; Lightning sets it on strategies that are asked for by name."""
        return [self._root_device]

    @parallel_devices.setter
    def parallel_devices(self, devices: list[torch.device] | None) -> None:
        if devices:
            self._root_device = devices[0]

    def setup(self, trainer: Trainer) -> None:
        """Check what this strategy cannot do, then set up as ever."""
        super().setup(trainer)
        if trainer.state.fn != "fit":
            return
        if not trainer.lightning_module.automatic_optimization:
            raise ModelError("strategy 'shared_seed' needs automatic optimization: it replaces the backward pass")
        if trainer.gradient_clip_val and trainer.gradient_clip_algorithm == "value":
            raise ModelError("strategy 'shared_seed' has no gradients to clip by value; remove gradient_clip_val")
        if is_param_in_hook_signature(trainer.lightning_module.training_step, "dataloader_iter", explicit=True):
            raise ModelError(
                "training_step takes dataloader_iter, which would give each side of a probe another batch; "
                "expected training_step(batch, batch_idx)"
            )
        usable = [o for o in trainer.optimizers if o.param_groups and not isinstance(o, LBFGS)]
        if len(usable) != 1 or len(trainer.optimizers) != 1:
            raise ModelError(
                f"strategy 'shared_seed' takes its learning rate from one optimizer such as SGD; "
                f"configure_optimizers gave {[type(o).__name__ for o in trainer.optimizers]}"
            )

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """One probe: ``training_step`` at both sides; logs once."""
        session = self._begun()
        if session.is_over():
            return None
        module = self.lightning_module
        outputs: list[Any] = []

        def loss() -> Tensor | float:
            with self.precision_plugin.train_step_context(), _silent(module, bool(outputs)):
                outputs.append(module.training_step(*args, **kwargs))
            return _loss_of(outputs[-1])

        measured = session.measure(loss, self.precision_plugin.train_step_context())
        first = outputs[0]
        mean = torch.tensor(measured.loss, device=self.root_device, requires_grad=True)
        return {**first, "loss": mean} if isinstance(first, dict) else mean

    def backward(self, closure_loss: Tensor, optimizer: Optimizer | None, *args: Any, **kwargs: Any) -> Tensor:
        """Fire the hooks of a backward pass; there is none."""
        self.pre_backward(closure_loss)
        self.post_backward(closure_loss)
        return closure_loss

    def optimizer_step(
        self, optimizer: Optimizer, closure: Callable[[], Any], model: nn.Module | None = None, **kwargs: Any
    ) -> Any:
        """Run the last probe of the step, exchange bytes, update the weights."""
        result = closure()
        session = self._begun()
        self.precision_plugin._after_closure(model or self.lightning_module, optimizer)
        # Schedulers warn unless they have seen a step.
        optimizer._opt_called = True  # type: ignore[attr-defined]
        if session.is_over():
            self.lightning_module.trainer.should_stop = True
            return result
        step = session.step(float(optimizer.param_groups[0]["lr"]))
        if self.on_step is not None:
            self.on_step(session, step)
        if session.is_over():
            self.lightning_module.trainer.should_stop = True
        return result

    def on_train_end(self) -> None:
        """Exchange the last bytes."""
        if self.session is not None:
            self.outcome = self.session.finish()
            self.session = None

    def on_exception(self, exception: BaseException) -> None:
        """Leave the swarm with clean weights."""
        self._leave()
        super().on_exception(exception)

    def teardown(self) -> None:
        """Leave the swarm if training has not ended it."""
        self._leave()
        super().teardown()

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

    def _leave(self) -> None:
        if self.session is not None:
            self.session.close()
            self.session = None

    def _begun(self) -> Session:
        """The session; opened at the first batch, when the model is where it will be trained."""
        if self.session is None:
            trainer = self.lightning_module.trainer
            rounds = trainer.max_steps if trainer.max_steps > 0 else int(trainer.estimated_stepping_batches)
            training = Training(
                rounds=rounds, title=self.title, recipe=self.recipe, evaluated=self.lightning_module
            )
            self.session = Session.open(self._trained(), self.settings, training)
            self.session.begin()
        return self.session


@contextmanager
def _silent(module: LightningModule, silent: bool) -> Iterator[None]:
    """Let ``self.log`` do nothing: what the first side of a probe has logged shall not be logged again."""
    if not silent:
        yield
        return
    loggers = [m.__dict__ for m in module.modules() if isinstance(m, LightningModule)]
    for names in loggers:
        names["log"] = names["log_dict"] = lambda *args, **kwargs: None
    try:
        yield
    finally:
        for names in loggers:
            del names["log"], names["log_dict"]


def _loss_of(output: Any) -> Tensor | float:
    loss = output.get("loss") if isinstance(output, dict) else output
    if not isinstance(loss, Tensor):
        raise ModelError(
            f"training_step returned {type(output).__name__}; strategy 'shared_seed' expects a loss tensor, or a "
            "dict with one under 'loss'"
        )
    return loss


StrategyRegistry.register(
    "shared_seed", SharedSeedStrategy, description="Shared-seed SPSA: no backprop, one byte a gradient"
)
