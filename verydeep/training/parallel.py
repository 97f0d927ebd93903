"""One network over several processes: each sees a share of every batch, and gradients are added up.

Plain: every process holds the whole network, and every gradient is exchanged (DistributedDataParallel). Fully
connected layers hold 494 of D's 553 MB of gradients. With `fc_parallel` each process holds a part of fc6, fc7 and fc8
instead and applies it to the images of all: pool5 is exchanged, and their gradients never are (Alex Krizhevsky, 'One
weird trick for parallelizing convolutional neural networks', 2014).
"""

from collections.abc import Mapping

import torch
import torch.distributed as dist
from jaxtyping import Bool, Shaped
from torch import Tensor, nn
from torch._C._distributed_c10d import GradBucket
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

from verydeep.machine.processes import Processes
from verydeep.networks.vgg import VGG

_BYTES_PER_NUMBER = 4
"""Weights and gradients are float32; so are activations, unless products are bfloat16."""

_SHARDED = ("fc6", "fc7", "fc8")


def parallelised(net: VGG, processes: Processes, device: torch.device, *, fc_parallel: bool) -> nn.Module:
    """Return the module to call in training: `net` itself, or one that adds up its gradients over the processes.

    All processes get the weights of the first one, and `net` goes on holding them. With `fc_parallel` its fully
    connected layers are sharded in place, and all processes have to call it equally often, with as many images.
    """
    if not processes.several:
        return net
    if fc_parallel:
        _shard(net, processes, device)
    ignored = [name for name, value in net.named_parameters() if isinstance(value, DTensor)]
    if not any(value.requires_grad for name, value in net.named_parameters() if name not in ignored):
        return net  # all that is not sharded is frozen
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(net, ignored)
    device_ids = [device] if device.type == "cuda" else None
    wrapped = DistributedDataParallel(net, device_ids=device_ids, gradient_as_bucket_view=True)
    wrapped.register_comm_hook(None, _added_up)
    return wrapped


def _shard(net: VGG, processes: Processes, device: torch.device) -> None:
    """Divide fc6 by rows of outputs, fc7 and fc8 by columns of inputs: only sums are exchanged between them."""
    mesh = init_device_mesh(device.type, (processes.count,))
    # Images of all processes come in as rows and go out as rows; in between everyone has all rows of some columns.
    plan = {
        "fc6": ColwiseParallel(input_layouts=Shard(0), output_layouts=Shard(-1), use_local_output=False),
        "fc7": RowwiseParallel(output_layouts=Shard(-1), use_local_output=False),
        "fc8": RowwiseParallel(output_layouts=Shard(0)),
    }
    parallelize_module(net, mesh, plan)


def _added_up(_state: None, bucket: GradBucket) -> torch.futures.Future[Tensor]:
    """Sum where DistributedDataParallel would average: losses are divided by the whole batch already."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    return work.get_future().then(lambda done: done.value()[0])


def same_statistics(net: VGG, processes: Processes) -> None:
    """Give all processes the first one's statistics of batch normalisation, which are those that are saved."""
    if processes.several and net.architecture.batch_norm:
        for buffer in net.buffers():
            dist.broadcast(buffer, src=0)


def everyones_rows(
    masks: Mapping[str, Bool[Tensor, "B features"]], net: VGG
) -> Mapping[str, Bool[Tensor, "B features"]]:
    """Return dropout masks of the images of all processes in the form that sharded layers need."""
    weight = net.fc6.weight
    if not isinstance(weight, DTensor):
        return masks
    return {
        name: DTensor.from_local(mask, weight.device_mesh, [Replicate()], run_check=False)
        for name, mask in masks.items()
    }


def whole(value: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
    """Gather a tensor if it is sharded; all processes have to call it."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def laid_out_like(other: Shaped[Tensor, "..."], value: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
    """Copy a value that all processes have to the device of `other`, sharded and laid out in memory as that is."""
    if isinstance(other, DTensor):
        return distribute_tensor(value.to(other.device), other.device_mesh, other.placements)
    return torch.empty_like(other).copy_(value)  # kernels that update all weights at once look at nothing but memory


def gradient_norm(net: nn.Module) -> float:
    """Return the norm of all gradients together, the same in every process."""
    gradients = [value.grad for value in net.parameters() if value.grad is not None]
    groups = ([one for one in gradients if isinstance(one, DTensor) == sharded] for sharded in (False, True))
    norms = [whole(torch.nn.utils.get_total_norm(group)) for group in groups if group]
    return torch.stack(norms).norm().item()


def bytes_sent(net: VGG, processes: int, *, batch: int, fc_parallel: bool, bf16: bool = False) -> int:
    """Return the bytes that each process sends in a step by ring algorithms: each of N passes on (N - 1)/N of the data.

    Adding up gradients takes twice that. With `fc_parallel`, activations of the whole batch are gathered (pool5 on the
    way forward, the gradients of fc7 and fc8 on the way back) or added up and dealt out (fc7, fc8 and the gradient of
    pool5): that much for each of the six.
    """
    sizes = {name: value.numel() for name, value in net.named_parameters() if value.requires_grad}
    sharded = [name for name in sizes if name.split(".")[0] in _SHARDED] if fc_parallel else []
    gradients = 2 * sum(size for name, size in sizes.items() if name not in sharded)
    activations = 2 * batch * (net.fc6.in_features + net.fc7.out_features + net.fc8.out_features) if fc_parallel else 0
    size = _BYTES_PER_NUMBER * gradients + (_BYTES_PER_NUMBER // 2 if bf16 else _BYTES_PER_NUMBER) * activations
    return size * (processes - 1) // processes
