"""config/finetune.yaml for a few steps: weights of a file, frozen batch norm, a CSV of images."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors.torch import load_file

SHARED = Path(__file__).parents[3] / "shared/data"
RUN = "results/finetune/runs/grocery/mobilenet/triplet/seed0"


def made_files(archives):
    """A zip in the layout of the groceries, and weights of random numbers."""
    import timm
    from safetensors.torch import save_file

    random = np.random.default_rng(0)
    with zipfile.ZipFile(archives / "grocery.zip", "w") as file:
        lines = ["path,label,coarse,top,split"]
        for label in range(12):
            for k in range(8):
                path = f"images/{label}_{k}.jpg"
                noise = random.integers(0, 60, (140, 128, 3)) + 15 * label
                with file.open(path, "w") as image:
                    Image.fromarray(noise.astype(np.uint8)).save(image, "JPEG")
                split = "test" if label % 2 else "train"
                lines.append(f"{path},{label},{label // 4},{label // 8},{split}")
        file.writestr("metadata.csv", "\n".join(lines))
    weights = timm.create_model("mobilenetv2_100", num_classes=0).state_dict()
    save_file(weights, archives / "mobilenetv2_100.safetensors")


def real_files(archives):
    for file in ("grocery/grocery.zip", "weights/mobilenetv2_100.safetensors"):
        shutil.copy(SHARED / file, archives)


@pytest.fixture
def finetuned(project, tmp_path, request):
    """The study, of one loss and one seed, on some of its classes."""
    archives = project.folder / "data/archives"
    archives.mkdir(parents=True)
    request.param(archives)
    settings = yaml.safe_load((project.folder / "config/finetune.yaml").read_text())
    settings["plan"] |= {"losses": ["triplet"], "seeds": [0], "controls": ["untrained"]}
    settings["datasets"]["grocery"]["class_fraction"] = 1 if request.param is made_files else 0.1
    settings["recipe"] |= {"epochs": 1, "batch_size": 24, "warmup_steps": 1}
    project.environment["DMLBENCH_DATA"] = str(tmp_path / "data")
    project.write(settings | {"tracking": False, "keep_model": True})
    project.run()
    return project


@pytest.mark.slow
@pytest.mark.parametrize(
    "finetuned",
    [
        made_files,
        pytest.param(
            real_files,
            marks=pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared data"),
        ),
    ],
    indirect=True,
)
def test_finetuning_starts_from_the_weights_of_the_file_and_keeps_batch_norm(finetuned):
    given = load_file(finetuned.folder / "data/archives/mobilenetv2_100.safetensors")
    learnt = load_file(finetuned.folder / RUN / "model.safetensors")
    moved = {name for name in given if (given[name] != learnt[f"trunk.{name}"]).any()}
    assert moved
    assert not [name for name in moved if "bn" in name]
    assert all((given[name] - learnt[f"trunk.{name}"]).abs().max() < 0.01 for name in moved)
    assert finetuned.json(f"{RUN}/run.json")["settings"]["recipe"]["freeze_bn"] is True
    table = (finetuned.folder / "results/finetune/leaderboard/leaderboard.md").read_text()
    assert "| triplet |" in table
    assert "| untrained |" in table
