"""One network over several processes: each sees a share of every batch, and gradients are added up.

Plain: every process holds the whole network, and every gradient is exchanged (DistributedDataParallel). Fully
connected layers hold 494 of D's 553 MB of gradients. With `fc_parallel` each process holds a part of fc6, fc7 and fc8
instead and applies it to the images of all: pool5 is exchanged, and their gradients never are (Alex Krizhevsky, 'One
weird trick for parallelizing convolutional neural networks', 2014).
"""

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import GradBucket
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

from verydeep.machine.processes import Processes
from verydeep.networks.vgg import VGG

BYTES_PER_NUMBER = 4
"""Weights and gradients are float32; so are activations, unless products are bfloat16."""

SHARDED = ("fc6", "fc7", "fc8")


def parallelised(net: VGG, processes: Processes, device: torch.device, *, fc_parallel: bool) -> nn.Module:
    """What to call in training: `net` itself, or `net` with its gradients added up over the processes.

    All get the weights of the first one. `net` stays what holds them; with `fc_parallel` its fully connected layers
    are sharded in place, and every process has to call it as often as the others, with as many images.
    """
    if not processes.several:
        return net
    if fc_parallel:
        _shard(net, processes, device)
    ignored = [name for name, value in net.named_parameters() if isinstance(value, DTensor)]
    if not any(value.requires_grad for name, value in net.named_parameters() if name not in ignored):
        return net  # all that is not sharded is frozen
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(net, ignored)
    wrapped = DistributedDataParallel(
        net,
        device_ids=[device] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
    )
    wrapped.register_comm_hook(None, _added_up)
    return wrapped


def _shard(net: VGG, processes: Processes, device: torch.device) -> None:
    """fc6 by rows of outputs, fc7 and fc8 by columns of inputs: between them nothing but sums has to be exchanged."""
    mesh = init_device_mesh(device.type, (processes.count,))
    # Images of all processes come in as rows and go out as rows; in between everyone has all rows of some columns.
    plan = {
        "fc6": ColwiseParallel(input_layouts=Shard(0), output_layouts=Shard(-1), use_local_output=False),
        "fc7": RowwiseParallel(output_layouts=Shard(-1), use_local_output=False),
        "fc8": RowwiseParallel(output_layouts=Shard(0)),
    }
    parallelize_module(net, mesh, plan)


def _added_up(_state: None, bucket: GradBucket) -> torch.futures.Future[Tensor]:
    """Sums, where DistributedDataParallel would average: losses are divided by the whole batch already."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    return work.get_future().then(lambda done: done.value()[0])


def same_statistics(net: VGG, processes: Processes) -> None:
    """All processes test with the first one's statistics of batch normalisation, which are those that are saved."""
    if processes.several and net.architecture.batch_norm:
        for buffer in net.buffers():
            dist.broadcast(buffer, src=0)


def everyones_rows(keep: Mapping[str, Tensor], net: VGG) -> Mapping[str, Tensor]:
    """Dropout masks for the images of all processes, as the sharded layers want them."""
    weight = net.fc6.weight
    if not isinstance(weight, DTensor):
        return keep
    return {
        name: DTensor.from_local(mask, weight.device_mesh, [Replicate()], run_check=False)
        for name, mask in keep.items()
    }


def whole(value: Tensor) -> Tensor:
    """A tensor that may be sharded, gathered; every process has to call it."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def like(full: Tensor, place: Tensor) -> Tensor:
    """`full`, which all processes have, on the device of `place`, sharded and laid out in memory as that is."""
    if isinstance(place, DTensor):
        return distribute_tensor(full.to(place.device), place.device_mesh, place.placements)
    return torch.empty_like(place).copy_(full)  # kernels that update all weights at once look at nothing but memory


def gradient_norm(net: nn.Module) -> float:
    """Of all gradients together, the same in every process."""
    gradients = [value.grad for value in net.parameters() if value.grad is not None]
    plain = [gradient for gradient in gradients if not isinstance(gradient, DTensor)]
    sharded = [gradient for gradient in gradients if isinstance(gradient, DTensor)]
    norms = [whole(torch.nn.utils.get_total_norm(part)) for part in (plain, sharded) if part]
    return torch.stack(norms).norm().item()


def bytes_sent(net: VGG, processes: int, *, batch: int, fc_parallel: bool, bf16: bool = False) -> int:
    """That each process sends in one step, with ring algorithms: each of N passes on (N - 1)/N of what there is.

    Gradients are added up in twice that. With `fc_parallel`, activations of the whole batch are gathered (pool5 on
    the way forward, the gradients of fc7 and fc8 on the way back) or added up and dealt out (fc7, fc8 and the gradient
    of pool5): six times once.
    """
    sizes = {name: value.numel() for name, value in net.named_parameters() if value.requires_grad}
    sharded = [name for name in sizes if name.split(".")[0] in SHARDED] if fc_parallel else []
    gradients = 2 * sum(size for name, size in sizes.items() if name not in sharded)
    activations = 0
    if fc_parallel:
        activations = 2 * batch * (net.fc6.in_features + net.fc7.out_features + net.fc8.out_features)
    size = BYTES_PER_NUMBER * gradients + (BYTES_PER_NUMBER // 2 if bf16 else BYTES_PER_NUMBER) * activations
    return size * (processes - 1) // processes
