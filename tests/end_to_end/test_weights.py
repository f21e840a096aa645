"""`pretrained: true`: the weights are fetched here, before any training."""

import timm
import torch
from safetensors.torch import load_file, save_file

NAME = "test_resnet.r160_in1k"


def test_weights_are_fetched_before_the_trainings_that_start_from_them(project, tiny, tmp_path):
    hub = tmp_path / f"hub/models--timm--{NAME}"
    (hub / "refs").mkdir(parents=True)
    (hub / "snapshots/c0ffee").mkdir(parents=True)
    data = tmp_path / "data"
    project.environment |= {
        "DMLBENCH_DATA": str(data),
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_HUB_OFFLINE": "1",
    }
    tiny["backbones"]["tiny"]["pretrained"] = True
    project.write(tiny)
    # two trainings; the control of random vectors starts from none
    assert project.planned()["fetch_weights"] == 1
    file = f"{data}/weights/{NAME}.safetensors"
    output = project.run(file, expect=1)
    assert f"Run `dmlbench weights {NAME}` where there is internet" in output
    assert f"  fetch_weights {NAME}: cannot fetch {NAME} from timm's hub: " in project.failed_jobs()
    (hub / "refs/main").write_text("c0ffee")
    state = timm.create_model("test_resnet").state_dict()
    save_file(state, hub / "snapshots/c0ffee/model.safetensors")
    project.run(file)
    assert torch.equal(load_file(file)["conv1.0.weight"], state["conv1.0.weight"])
    assert project.failed_jobs() == ""
