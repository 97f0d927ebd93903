"""Small networks with random weights, for tests of their features."""

import torch

from verydeep import vgg
from verydeep.runs.model import Model, save_model


def save_network(folder, *, name="A", seed=0, crop=32, random_layers=(), **more):
    """Save a model; activations keep their variance from layer to layer, so images of other colours differ."""
    torch.manual_seed(seed)
    net = vgg(name, classes=2, crop=crop, width=0.05, **more)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                module.weight.normal_(0, (2 / module.weight[0].numel()) ** 0.5)
    save_model(
        Model(net=net, classes=("x", "y"), scale="256", flip=True, random_layers=random_layers), folder / "model"
    )
    return folder
