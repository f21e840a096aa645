import copy
import json
import os
import signal

import pytest

# Workers share two cores; the numbers of threads that matter are set by what is tested.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Started in a shell's background, this process ignores Ctrl-C, and so would all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the same under nohup

TINY = {
    "study": "tiny",
    "plan": {
        "datasets": ["letters"],
        "backbones": ["tiny"],
        "losses": ["normalized_softmax", "proxy_anchor"],
        "seeds": [0],
        "controls": ["random"],
    },
    "datasets": {"letters": {"type": "glyphs", "class_fraction": 0.1}},
    "backbones": {"tiny": {"type": "test_resnet", "dim": 16, "image_size": 32}},
    "recipe": {"batch_size": 48, "epochs": 1, "lr": 0.003},
    "tracking": False,
}


@pytest.fixture(scope="session")
def tiny_settings():
    """A study that takes seconds."""
    return copy.deepcopy(TINY)


@pytest.fixture
def tiny(tiny_settings):
    """A study that takes seconds, to be changed by the test."""
    return copy.deepcopy(tiny_settings)


@pytest.fixture(scope="session")
def store_name(tiny_settings):
    from dmlbench.study.study import check_study

    (name,) = check_study(tiny_settings, "tiny").stores
    return name


@pytest.fixture(scope="session")
def note_duplicates():
    """Write a file of near-duplicates."""
    return _note_duplicates


def _note_duplicates(stores, trained, tested=None, pairs=()):
    """Write the file of near-duplicates as a search would: pairs of a test image and a training
    image, which may say that one is mirrored."""
    from dmlbench.datasets.store.duplicates_file import duplicates_origin, duplicates_path
    from dmlbench.utils.digests import write_with_digest

    names = trained, tested or trained
    columns = {
        "test": [pair[0] for pair in pairs],
        "train": [pair[1] for pair in pairs],
        "distance": [0] * len(pairs),
        "correlation": [1.0] * len(pairs),
        "mirrored": ["mirrored" in pair for pair in pairs],
    }
    made_from = duplicates_origin(stores, *names)
    write_with_digest(duplicates_path(stores, *names), {"made_from": made_from, "pairs": columns})


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory, store_name):
    """A data folder with the packed glyphs."""
    from dmlbench.datasets.store.pack import pack

    folder = tmp_path_factory.mktemp("data")
    pack("glyphs", 32, folder / "stores" / store_name, folder / "archives")
    _note_duplicates(folder / "stores", store_name)
    return folder


@pytest.fixture(scope="session")
def glyphs(data_folder, store_name):
    from dmlbench.datasets.store.reader import Store

    return Store(data_folder / "stores" / store_name)


@pytest.fixture
def write_store():
    """Write a folder that passes for a packed store, without its images."""

    def write(folder, **changes):
        from dmlbench.datasets.store.format import FORMAT
        from dmlbench.utils.digests import describe_file, write_with_digest

        folder.mkdir(parents=True, exist_ok=True)
        tables = ("index.parquet", "protocols.parquet")
        for name in ("images.bin", *tables):
            (folder / name).write_bytes(b"x")
        counts = {"images": 2, "splits": {"train": [1, 1], "test": [1, 1]}}
        kind = {"type": "glyphs", "side": 32, "store": "pixels", "channels": 1, "facts": {}}
        files = {
            "files": {"images.bin": 1} | dict.fromkeys(tables, 1),
            "digests": {name: describe_file(folder / name)["sha256"] for name in tables},
        }
        manifest = {"format": FORMAT, **kind, **counts, **files, "content": "x", "settings": {}}
        write_with_digest(folder / "manifest.json", manifest | changes)

    return write


@pytest.fixture
def write_results():
    """Write the result files of runs as the jobs would have."""

    def write(study, *paths, status="ok", stage="metrics.json", value=0.5):
        from dmlbench.utils.fingerprint import code_digests

        error = None if status == "ok" else {"message": f"it is {status}", "tail": []}
        for path in paths or study.runs:
            run, files = study.runs[path], study.files.run(path)
            files.folder.mkdir(parents=True, exist_ok=True)
            result = {"train_key": run.train_key, "status": status, "error": error}
            code = code_digests(*run.modules)
            trained = {"study": study.name, "settings": run.settings, "code": code}
            trained["provenance"] = {"wall_seconds": 60}
            scored = {"settings": run.metric_settings, "code": code_digests(*run.metric_modules)}
            files.embeddings.touch()
            files.history.touch()
            files.write_run(result | trained)
            if status == "ok":
                scored["near_duplicates"] = {"test_images": 2, "leaked": 0}
            if stage == "metrics.json":
                row = {"protocol": "zero_shot", "metric": "recall@1", "value": value}
                rows = [row, row | {"metric": "map@r"}] if status == "ok" else []
                scored |= {"eval_key": run.eval_key, "metrics": rows}
                files.write_metrics(result | scored, files.load_run())

    return write


@pytest.fixture
def write_attempt():
    """Write the state folder of a training that was begun, and give its lock file."""

    def write(study, path, ended="killed", host=None, time=None, job=None, **progress):
        import platform
        from time import time as now

        folder, host = study.folder / "state" / path, host or platform.node()
        folder.mkdir(parents=True)
        (folder / "lock").touch()
        key = study.runs[path].train_key if path in study.runs else study.trials[path].key
        attempts = {"key": key, "idle": 0, "ended": ended, "host": host}
        attempts |= {"saved": -1, "message": "", "job": job, "timings": {"save": None}}
        (folder / "attempts.json").write_text(json.dumps(attempts))
        if progress:
            seconds = {"steps_per_second": 10.0, "seconds_left": 30.0, "loss": 0.5}
            facts = {"device": "cpu", "host": host, "pid": 1, "time": time or now()}
            (folder / "progress.json").write_text(json.dumps(seconds | facts | progress))
        if time:
            os.utime(folder / "attempts.json", (time, time))
        return folder / "lock"

    return write


@pytest.fixture
def use_gpus(monkeypatch):
    """Let this process find these GPUs on its machine, by their UUIDs."""
    for variable in ("CUDA_VISIBLE_DEVICES", "DMLBENCH_GPUS", "DMLBENCH_LEASED_GPU"):
        monkeypatch.setenv(variable, "")  # so that it is as before after the test
        monkeypatch.delenv(variable)

    def use(*uuids):
        from dmlbench.utils.gpus import Gpu, Gpus

        gpus = tuple(Gpu(uuid, "Fake 9000", "Default") for uuid in uuids)
        monkeypatch.setattr("dmlbench.utils.gpu_lease.find_gpus", lambda: Gpus(gpus, gpus))

    return use


@pytest.fixture
def read_package(monkeypatch):
    """Read the code of the package from another folder, with nothing of it remembered."""
    from dmlbench.backbones import catalogue
    from dmlbench.utils import declarations, fingerprint, modules

    def forget():
        for cached in (
            catalogue.own_backbones,
            declarations.read_declarations,
            fingerprint.code_digest,
            fingerprint.code_digests,
            fingerprint.makes_numbers,
            fingerprint._internal_imports,
            fingerprint._written,
            fingerprint.module_digest,
            modules.imported_modules,
            modules.parse_module,
        ):
            cached.cache_clear()

    def read(folder):
        for module in (catalogue, fingerprint, modules):
            monkeypatch.setattr(module, "PACKAGE", folder)
        forget()

    yield read
    monkeypatch.undo()
    forget()
