"""Small random data sets in the layout of the papers' archives, packed for a run."""

import hashlib
import io
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from dmlbench.datasets import cub200, decoding, inshop, sop
from dmlbench.datasets.store.pack import pack

TEST = 4, 3  # classes, images of each


def _cub200(classes, images, picture):
    names = [f"{number:03}.Bird" for number in [*range(1, classes + 1), *range(101, 101 + TEST[0])]]
    paths = [
        f"{name}/Bird_{view:04}.jpg"
        for name in names
        for view in range(images if name < "101" else TEST[1])
    ]
    listing = "".join(f"{number} {path}\n" for number, path in enumerate(paths, start=1))
    pictures = {f"CUB_200_2011/images/{path}": picture() for path in paths}
    return {"CUB_200_2011.tgz": {"CUB_200_2011/images.txt": listing.encode()} | pictures}


def _sop(classes, images, picture):
    root, image, members = "Stanford_Online_Products", 0, {}
    lines = {split: ["image_id class_id super_class_id path\n"] for split in ("train", "test")}
    for product in range(classes + TEST[0]):
        split = "train" if product < classes else "test"
        for view in range(images if split == "train" else TEST[1]):
            image, kind = image + 1, product % 12
            path = f"kind{kind:02}_final/{product:012}_{view}.JPG"
            members[f"{root}/{path}"] = picture()
            lines[split].append(f"{image} {product + 1} {kind + 1} {path}\n")
    lists = {f"{root}/Ebay_{split}.txt": "".join(lines[split]).encode() for split in lines}
    return {"Stanford_Online_Products.zip": lists | members}


def _inshop(classes, images, picture):
    members, rows = {}, []
    for item in range(classes + TEST[0]):
        statuses = ["train"] * images if item < classes else ["query", "gallery", "gallery"]
        for view, status in enumerate(statuses):
            path = f"img/WOMEN/Dresses/id_{item:08}/{view:02}_1_front.jpg"
            members[path] = picture()
            rows.append(f"{path} id_{item:08} {status}")
    head = [str(len(rows)), "image_name item_id evaluation_status"]
    partition = "\n".join(head + rows).encode()
    return {"inshop_list_eval_partition.txt": partition, "inshop_img.zip": members}


MAKERS = {"cub200": (cub200, _cub200), "sop": (sop, _sop), "inshop": (inshop, _inshop)}


@pytest.fixture
def pack_random(monkeypatch, tmp_path):
    """Pack random photographs as the images of `run`; gives the folder of stores.

    There are `classes` x `images` to train on, and a few to test on.
    """
    random = np.random.default_rng(0)

    def picture():
        pixels = random.integers(0, 256, (12, 15, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).resize((300, 270)).save(file, "JPEG")
        return file.getvalue()

    def pack_run(run, classes, images):
        module, make = MAKERS[run.data.type]
        test = TEST[0] * TEST[1]
        small = {
            "splits": {"train": [classes, classes * images], "test": [TEST[0], test]},
            "roles": {"query": TEST[0], "gallery": test - TEST[0]},
        }
        for facts in (module.FACTS, run.facts):
            for fact in small.keys() & facts.keys():
                monkeypatch.setitem(facts, fact, small[fact])
        monkeypatch.setattr(decoding, "ProcessPoolExecutor", lambda *_, **__: ThreadPoolExecutor(2))
        folder, checksums = tmp_path / "archives", {}
        folder.mkdir()
        for name, content in make(classes, images, picture).items():
            _write(folder / name, content)
            checksums[name] = f"md5:{hashlib.md5((folder / name).read_bytes()).hexdigest()}"
        pack(run.data.type, run.model.side, tmp_path / "stores" / run.store, folder, checksums)
        return tmp_path / "stores"

    return pack_run


def _write(path, content):
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in content.items():
                archive.writestr(name, data)
    else:
        with tarfile.open(path, "w:gz") as archive:
            for name, data in content.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
