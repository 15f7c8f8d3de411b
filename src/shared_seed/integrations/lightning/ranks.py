"""The processes of one Trainer as peers: ``devices=N``, torchrun, SLURM and what else Lightning knows.

Lightning's own launcher starts them and its cluster environment says who is who. They share the initial weights,
metrics and decisions through a process group, as under DDP; gradients go as bytes from peer to peer.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
import torch.distributed as dist

from shared_seed.launch import NEAR, Place


class Ranks:
    """The part of a strategy that knows of processes and devices; mixed into Lightning's base classes."""

    package: str
    fabric: str
    parallel_devices: Any
    cluster_environment: Any
    lightning_module: Any
    model: Any
    num_nodes = 1
    world_size = 1
    global_rank = 0
    local_rank = 0
    node_rank = 0

    def lightning(self, name: str) -> Any:
        """A module of Lightning under the name that this strategy is for."""
        return importlib.import_module(f"{self.package}.{name}")

    @property
    def processes(self) -> int:
        """Processes on this machine."""
        return len(self.parallel_devices or [None])

    @property
    def is_distributed(self) -> bool:
        """Whether each process shall get its own shard of the data."""
        return self.world_size > 1

    @property
    def is_global_zero(self) -> bool:
        """Whether this process writes checkpoints and logs."""
        return self.global_rank == 0

    @property
    def root_device(self) -> torch.device:
        """Where this process computes."""
        device: torch.device = (self.parallel_devices or [torch.device("cpu")])[self.local_rank]
        return device

    @property
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        """How the data is cut into shards."""
        return {"num_replicas": self.world_size, "rank": self.global_rank}

    def set_world_ranks(self) -> None:
        """Find out who this process is, from the Trainer's arguments and the environment."""
        self.world_size = self.num_nodes * self.processes
        if self.is_distributed:
            environment = self.cluster_environment
            self.local_rank = environment.local_rank()
            self.node_rank = environment.node_rank()
            environment.set_global_rank(self.node_rank * self.processes + self.local_rank)
            environment.set_world_size(self.world_size)
            self.global_rank = environment.global_rank()

    def _configure_launcher(self) -> None:
        """Let Lightning start the other processes of this machine, unless somebody else does."""
        if self.is_distributed:
            launchers = self.lightning("strategies.launchers.subprocess_script")
            launcher = launchers._SubprocessScriptLauncher
            self._launcher = launcher(self.cluster_environment, self.processes, self.num_nodes)

    def setup_environment(self) -> None:
        """Set up the device and, between several processes, the process group."""
        super().setup_environment()  # type: ignore[misc]
        if self.is_distributed:
            self.set_world_ranks()
            backend = "nccl" if self.root_device.type == "cuda" else "gloo"
            distributed = importlib.import_module(f"{self.fabric}.utilities.distributed")
            distributed._init_dist_connection(self.cluster_environment, backend)

    def share_weights(self) -> None:
        """Give every process the first one's parameters and buffers, as DDP does."""
        if self.is_distributed:
            for values in (*self.model.parameters(), *self.model.buffers()):
                dist.broadcast(values.detach(), 0)

    def reduce(self, tensor: Any, group: Any | None = None, reduce_op: Any = "mean") -> Any:
        """A value from all processes, for metrics that are logged with ``sync_dist=True``."""
        if not (self.is_distributed and isinstance(tensor, torch.Tensor)):
            return tensor
        distributed = importlib.import_module(f"{self.fabric}.utilities.distributed")
        return distributed._sync_ddp_if_available(tensor, group, reduce_op=reduce_op)

    def all_gather(self, tensor: torch.Tensor, group: Any | None = None, sync_grads: bool = False) -> torch.Tensor:
        """A tensor of every process, stacked."""
        if not self.is_distributed:
            return tensor
        distributed = importlib.import_module(f"{self.fabric}.utilities.distributed")
        gathered: torch.Tensor = distributed._all_gather_ddp_if_available(tensor, group=group, sync_grads=False)
        return gathered

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        """Whether all processes, or any, say yes."""
        if not self.is_distributed:
            return decision
        votes = torch.tensor(int(decision), device=self.root_device)
        dist.all_reduce(votes)
        return int(votes) == self.world_size if all else bool(votes)

    def barrier(self, *args: Any, **kwargs: Any) -> None:
        """Wait for all processes."""
        if self.is_distributed and dist.is_initialized():
            dist.barrier()

    def broadcast(self, obj: Any, src: int = 0) -> Any:
        """An object of one process, for all."""
        if not (self.is_distributed and dist.is_initialized()):
            return obj
        box = [obj]
        dist.broadcast_object_list(box, src)
        return box[0]

    def gather(self, obj: Any) -> list[Any]:
        """An object of every process."""
        if not self.is_distributed:
            return [obj]
        objects: list[Any] = [None] * self.world_size
        dist.all_gather_object(objects, obj)
        return objects

    @property
    def place(self) -> Place:
        """Which of all processes this is, and where the others find the first one."""
        host = NEAR if self.num_nodes == 1 else self.cluster_environment.main_address
        return Place(self.global_rank, self.world_size, host)
