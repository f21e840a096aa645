"""A study of which a part cannot run is complete otherwise, and its leaderboard has holes."""

import pytest
import timm
from safetensors.torch import save_file

NAME = "test_resnet.r160_in1k"


@pytest.mark.slow
def test_missing_weights_and_images_are_holes_until_they_are_there(
    project, tiny, tmp_path, data_folder
):
    project.environment |= {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    data = tmp_path / "data"  # the packed glyphs of other tests, but nobody's weights
    (data / "stores").mkdir(parents=True)
    for store in (data_folder / "stores").iterdir():
        (data / "stores" / store.name).symlink_to(store)
    project.environment["DMLBENCH_DATA"] = str(data)
    tiny["backbones"]["tuned"] = tiny["backbones"]["tiny"] | {"pretrained": True}
    tiny["datasets"]["clothes"] = {"type": "inshop"}  # nobody may fetch it without a form
    tiny["plan"] |= {
        "datasets": ["letters", "clothes"],
        "backbones": ["tiny", "tuned"],
        "losses": ["proxy_anchor"],
        "exclude": [{"dataset": "clothes", "backbone": "tuned"}],
    }
    project.write(tiny)
    output = project.run(expect=1)
    assert "Traceback" not in output
    assert "tiny: 3 of 6 runs failed:" in output
    message = "letters/tuned/proxy_anchor/seed0: missing_weights: its weights are missing: cannot"
    assert f"  {message} fetch {NAME}" in output
    message = "2 runs of clothes x tiny: missing_data: its images are missing: inshop_list_eval"
    assert f"  {message}_partition.txt is not there" in output
    table = (project.folder / "results/tiny/leaderboard/leaderboard.csv").read_text()
    assert ",missing_weights," in table
    assert ",missing_data," in table
    page = (project.folder / "results/tiny/leaderboard/leaderboard.html").read_text()
    assert "cannot fetch test_resnet.r160_in1k" in page
    assert not list((project.folder / "results").rglob("failed.json"))

    # the next call runs exactly what was missing, and then the leaderboard is whole
    state = timm.create_model("test_resnet").state_dict()
    (data / "weights").mkdir()
    save_file(state, data / f"weights/{NAME}.safetensors", {"model": NAME})
    del tiny["datasets"]["clothes"]
    tiny["plan"] |= {"datasets": ["letters"], "exclude": []}
    project.write(tiny)
    project.diff({"train": 1, "evaluate": 1, "build_leaderboard": 1, "verdict": 1})
    project.run()
    table = (project.folder / "results/tiny/leaderboard/leaderboard.csv").read_text()
    assert "missing" not in table
    project.diff({})
