"""What a user of Lightning sees of the swarm: in the progress bar, and in the loggers."""

from __future__ import annotations

from typing import Any

from shared_seed.outcome import Step
from shared_seed.session import Session


class Display:
    """Adds the last step's figures to the progress bar while a session is open, and logs them, if wanted."""

    def __init__(self, wanted: bool) -> None:
        self.wanted = wanted
        self._bar: Any = None
        self._shown: dict[str, Any] = {}

    def attach(self, trainer: Any) -> None:
        """Shadow the progress bar's metrics on the instance, with our figures among them."""
        bar = trainer.progress_bar_callback if self.wanted else None
        if bar is None or "get_metrics" in bar.__dict__:
            return
        own = bar.get_metrics

        def get_metrics(*args: Any, **kwargs: Any) -> dict[str, Any]:
            return {**own(*args, **kwargs), **self._shown}

        bar.get_metrics = get_metrics
        self._bar = bar

    def detach(self) -> None:
        """Undo :meth:`attach`."""
        if self._bar is not None:
            self._bar.__dict__.pop("get_metrics", None)
            self._bar = None
        self._shown = {}

    def show(self, trainer: Any, session: Session, step: Step) -> None:
        """Take in a step; it is logged as often as the Trainer logs."""
        if not self.wanted:
            return
        self._shown = {"peers": step.peers, "projected_grad": f"{step.gradient:.3g}"}
        if trainer.loggers and trainer._logger_connector.should_update_logs:
            traffic = session.traffic
            metrics = {
                "projected_grad": step.gradient,
                "peers": step.peers,
                "bytes_sent": traffic.sent,
                "bytes_received": traffic.received,
            }
            for logger in trainer.loggers:
                logger.log_metrics(metrics, step=trainer.fit_loop.epoch_loop._batches_that_stepped)
