# The study, the environment of the jobs, and the params of their rules.

import json
import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

ROOT = Path(workflow.current_basedir).parent.parent
sys.path.insert(0, str(ROOT))

from dmlbench import study
from dmlbench.gpus import keep_to
from dmlbench.installed import BrokenInstallation
from dmlbench.problems import StudyError
from dmlbench.tracking import tracking_uri
from dmlbench.workflow import (
    GPU_CORES,
    claim,
    look_for_images,
    scoring_gpus,
    training_threads,
)

# Jobs find this dmlbench with this Python, activated or not, and keep its bytecode
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
if not workflow.deployment_settings.deployment_method:
    for name, first in {
        "PATH": Path(sys.executable).parent,
        "PYTHONPATH": ROOT,
    }.items():
        os.environ[name] = os.pathsep.join(
            filter(None, [str(first), os.environ.get(name)])
        )

# A study file is whole: the demo is what is run without one, and not what others start from
if not workflow.configfiles and "study" not in config:

    configfile: str(ROOT / "config/demo.yaml")


try:
    STUDY = study.check(config, ", ".join(map(str, workflow.configfiles)) or "--config")
except (StudyError, BrokenInstallation) as error:
    raise WorkflowError(str(error))

DATA = os.environ.get("DMLBENCH_DATA", "data")
STORES = f"{DATA}/stores"
# Of `--sdm conda`; from the rules' folder
ENVIRONMENT = f"../../envs/{os.environ.get('DMLBENCH_CONDA', 'cpu')}.yaml"
RUN = f"{STUDY.folder}/runs/{{dataset}}/{{backbone}}/{{loss}}/seed{{seed}}"
SNAPSHOT = f"{STUDY.folder}/study.json"
# This machine's, of the profile or `--resources gpu=2`; a cluster's are not counted
GPUS = workflow.global_resources.get("gpu").value or 0
RUNS_AT_ONCE = GPUS * STUDY.settings.runs_per_gpu
TRACKED = f"{STUDY.folder}/tracked.txt"


wildcard_constraints:
    dataset="[^/]+",
    backbone="[^/]+",
    loss="[^/]+",
    seed=r"\d+",
    store="[^/]+",
    weights="[^/]+",


def open_study():
    """Before the first job: this study is worked on by this call alone, and by these settings."""
    try:
        claim(STUDY)
        look_for_images(STUDY, Path(STORES))
    except StudyError as error:
        raise WorkflowError(str(error))
    if GPUS and runs_here():
        workflow.register_resource("gpu", RUNS_AT_ONCE)
        if RUNS_AT_ONCE > GPUS:  # which would spread over more of them
            keep_to(GPUS)


def point_to_leaderboard():
    page = STUDY.folder / "leaderboard/leaderboard.html"
    if page.is_file():
        print(f"The leaderboard: {page}; as Markdown, CSV and plots beside it")


def run_of(wildcards):
    path = "{w.dataset}/{w.backbone}/{w.loss}/seed{w.seed}".format(w=wildcards)
    return STUDY.runs[path]


def stores_of(wildcards):
    """Packed images that a run reads: made where missing, and never a reason to train again. What
    they are is in the run's key."""
    return [
        ancient(f"{STORES}/{store}/manifest.json") for store in run_of(wildcards).stores
    ]


def test_store_of(wildcards):
    """Packed images that a run is tested on."""
    return ancient(f"{STORES}/{run_of(wildcards).tested.store}/manifest.json")


def archives_of(wildcards):
    """Note of the archives of a store, if it is made of some; never a reason to pack again."""
    note = f"{STORES}/{wildcards.store}/archives.json"
    return ancient(note) if STUDY.stores[wildcards.store].has_archives else []


def archive_source(wildcards):
    """What is to be fetched for a store. It is in the store's name too."""
    data = STUDY.stores[wildcards.store].data
    return [data.type, json.dumps(data.checksums, sort_keys=True)]


def store_source(wildcards):
    """What goes into a store. It is in the store's name too: whichever study asks, these are the
    same, so a store that is there is never made again."""
    run = STUDY.stores[wildcards.store]
    return [
        run.data.type,
        str(run.model.side),
        json.dumps(run.data.checksums, sort_keys=True),
        run.data.store,
    ]


def store_options(wildcards):
    """Where the images of an entry with options lie, and how they are read. What of it makes
    another store is in the store's name; a folder that was moved does not."""
    return json.dumps(STUDY.stores[wildcards.store].data.options)


def weights_of(wildcards):
    """timm's weights that a run starts from, if any: staged where missing."""
    run = run_of(wildcards)
    staged = run.weights and run.uses_model
    return ancient(f"{DATA}/weights/{run.weights}.safetensors") if staged else []


def train_key(wildcards):
    return run_of(wildcards).train_key


def eval_key(wildcards):
    return run_of(wildcards).eval_key


def runs_here():
    """Whether jobs share this machine; on a cluster each has its GPU, and what cores it asks for,
    alone."""
    return workflow.local_exec and workflow.is_main_process


def train_gpus(wildcards):
    return int(run_of(wildcards).uses_model)


def train_threads(wildcards):
    run = run_of(wildcards)
    if runs_here():
        return training_threads(run, workflow.cores, RUNS_AT_ONCE)
    return max(run.recipe.cpu_threads, GPU_CORES * train_gpus(wildcards))


def train_priority(wildcards):
    """A GPU never waits for cores that scores are made on; without one, scores come as they can."""
    return train_gpus(wildcards) if GPUS else 0


def score_gpus(wildcards):
    run = run_of(wildcards)
    return scoring_gpus(run, Path(STORES) / run.tested.store)


def results(name):
    """The file `name` of every run."""
    return [f"{STUDY.folder}/runs/{path}/{name}" for path in STUDY.runs]
