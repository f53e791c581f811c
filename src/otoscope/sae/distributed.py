"""Several processes that train one dictionary, started by ``torchrun``: each has a share of every batch.

Gradients are averaged before they are clipped, so that the result is that of one process with the whole batch, up to
rounding, for every loss that is a mean over frames. BatchTopK cuts within each share, the auxiliary loss is normalised
within it, and the temporal loss compares the frames of a share.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from otoscope.sae.batch import Batch


class Group:
    """The processes of a training; one alone needs no network.

    Attributes:
        rank: number of this process.
        size: how many there are.
    """

    def __init__(self, device: str = "cpu") -> None:
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        if self.size > 1 and not dist.is_initialized():
            if device == "cuda":  # from now on "cuda" is this process's own
                torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
            dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")

    @property
    def leads(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0

    def share(self, batch: Batch) -> Batch:
        """This process's frames, as many as every other's."""
        if self.size == 1:
            return batch
        # whole stretches, not every n-th frame: the temporal loss needs frames that follow one another
        each = len(batch.x) // self.size
        mine = slice(self.rank * each, (self.rank + 1) * each)
        return Batch(batch.x[mine], batch.utterance[mine], batch.time[mine])

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the processes, in one exchange."""
        if self.size == 1:
            return
        grads = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.reshape(-1) for g in grads])
        dist.all_reduce(flat)
        flat /= self.size
        for grad, part in zip(grads, flat.split([g.numel() for g in grads])):
            grad.copy_(part.view_as(grad))

    def sum(self, value: Tensor) -> Tensor:
        """The sum over the processes."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def any(self, flags: Tensor) -> Tensor:
        """Where at least one process says yes."""
        if self.size == 1:
            return flags
        counts = flags.to(torch.int32)
        dist.all_reduce(counts)
        return counts > 0

    def average_buffers(self, module: nn.Module) -> None:
        """Replace every buffer (the threshold) by its mean."""
        if self.size > 1:
            for buffer in module.buffers():
                dist.all_reduce(buffer)
                buffer /= self.size

    def wait(self) -> None:
        """Until all have got here."""
        if self.size > 1:
            dist.barrier()
