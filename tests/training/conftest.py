import pytest


@pytest.fixture(scope="session")
def weights_file(tmp_path_factory):
    """Weights of test_resnet with random batch norms: each convolution learns if they are frozen.

    Beside frozen batch norms as timm starts them, 9 of 15 convolutions have no gradient.
    """
    import timm
    import torch
    from safetensors.torch import save_file

    from dmlbench.backbones.folding import randomise_batch_norms

    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=0)
    randomise_batch_norms(model, torch.Generator().manual_seed(0))
    file = tmp_path_factory.mktemp("weights") / "test_resnet.safetensors"
    save_file(model.state_dict(), file)
    return file
