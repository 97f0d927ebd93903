"""Made-up grids that several files of tests look at."""

import pytest
import torch
from made_up_grids import TEN, made_up, noise

from verydeep.networks.architecture import Architecture
from verydeep.networks.vgg import VGG
from verydeep.reproduction.grid import Grid
from verydeep.runs.files import MODEL
from verydeep.runs.model import Model, save_model


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    return made_up(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def everything(tmp_path_factory):
    """All of the grid, three seeds; fused and jittered networks err least."""

    def error(name, seed):
        trained = sum({"A": 30, "B": 26, "C": 24, "D": 20, "E": 20}[one[0]] for one in name.split(" ")[0].split("+"))
        networks = name.count("+") + 1
        better = 4 * ("512" in name) + 3 * ("paper" in name) + 2 * ("both" in name) + 5 * (networks > 1)
        return trained / networks - better + seed / 2

    return made_up(tmp_path_factory.mktemp("everything"), grid=Grid(seeds=3), errors=error, memory=1_500_000_000)


@pytest.fixture(scope="session")
def pictured(tmp_path_factory):
    """With images, so that the best network's confusions, wrong images and score maps are there."""
    folder, grid = tmp_path_factory.mktemp("pictured"), Grid(only=("A-256",), tables=(3,))
    torch.manual_seed(0)
    net = VGG(Architecture(network="A", classes=10, crop=32, width=0.05)).eval()
    with torch.no_grad():
        net.fc8.bias[3] += 10  # so all images are taken for one class: as many pairs are confused as can be listed
    model = Model(net=net, classes=TEN, scale="256", flip=True)
    save_model(model, folder / "runs" / "seed-0" / "A-256" / MODEL)
    return made_up(folder, grid=grid, errors={"A-256 dense single": 90.0}, splits=noise())
