"""Training by several processes (torchrun): each works on its parts of every batch, gradients are summed.

A batch is cut into equal, interleaved parts. They go over the processes, and within one process over time (gradient
accumulation). Everything random is drawn for the whole batch by every process and then cut, so the result depends on
neither number, as long as the groups of D's minibatch deviation stay whole. Image i lies in group i mod (N / group), so
interleaved parts keep them whole where N / group is a multiple of the number of parts.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Iterator

import torch
import torch.distributed as dist

from pipeline.errors import PipelineError

LONGEST = datetime.timedelta(hours=1)  # the others wait while the first one measures


class Processes:
    """The processes of one training, and what they share."""

    def __init__(self, accumulate: int = 1):
        self.accumulate = accumulate
        self.several = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if self.several else 0
        self.count = dist.get_world_size() if self.several else 1

    @classmethod
    def start(cls, device: torch.device | str = "cpu", accumulate: int = 1) -> Processes:
        """Join the processes that torchrun started, if any: NCCL on GPUs, gloo on CPUs.

        A GPU without a number is that of this process's LOCAL_RANK, as in `resolve_device`.
        """
        device = torch.device(device)
        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
            if device.type == "cuda":
                # NCCL speaks over the current device: all processes would meet on GPU 0.
                own = int(os.environ.get("LOCAL_RANK", "0")) if device.index is None else device.index
                torch.cuda.set_device(own)
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=LONGEST)
        return cls(accumulate)

    @property
    def first(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    @property
    def parts(self) -> int:
        """Number of parts of a batch."""
        return self.count * self.accumulate

    def own(self, batch: int) -> Iterator[slice]:
        """Yield this process's parts of a batch; PipelineError when it cannot be cut evenly."""
        if batch % self.parts:
            raise PipelineError(
                f"a batch of {batch} cannot be cut into {self.parts} equal parts ({self.count} processes times "
                f"accumulate {self.accumulate}); change batch in [finetune] or the number of processes"
            )
        for k in range(self.accumulate):
            yield slice(self.rank * self.accumulate + k, None, self.parts)

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        """Sum a tensor over the processes."""
        if self.several:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Sum the gradients over the processes, in one message."""
        if not self.several:
            return
        grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
        whole = torch.cat([grad.flatten() for grad in grads])
        dist.all_reduce(whole)
        for grad, part in zip(grads, whole.split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(part.view_as(grad))

    def joined(self, values: torch.Tensor) -> torch.Tensor:
        """Equally long rows of all processes, one after another."""
        if not self.several:
            return values
        parts = [torch.empty_like(values) for _ in range(self.count)]
        dist.all_gather(parts, values.contiguous())
        return torch.cat(parts)

    def wait(self) -> None:
        """Wait for the others."""
        if self.several:
            dist.barrier()

    def leave(self) -> None:
        """End the group, all processes together: one that is still sending would die of a closed connection.

        Who comes out of the barrier first may close it while another is still in it; so all tell the store that they
        are out, and wait there, where nothing is sent from one to another.
        """
        if self.several:
            dist.barrier()
            store = dist.distributed_c10d._get_default_store()
            if store.add("left", 1) == self.count:
                store.set("all left", "yes")
            store.wait(["all left"])
            dist.destroy_process_group()
            self.several = False
