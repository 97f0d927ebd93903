"""Small networks with random weights, which tell images of other colours apart."""

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


def lively(seed, classes=7):
    """Return a net that prefers another class for images of another colour."""
    torch.manual_seed(seed)
    net = vgg("A", classes=classes, crop=32, width=0.05).eval()
    colours = torch.rand(200, 3, 1, 1).expand(-1, -1, 32, 32) * 255
    with torch.no_grad():
        net.fc8.weight /= net(colours).std(dim=0)[:, None] / 2
        net.fc8.bias -= net(colours).mean(dim=0)
    return net
