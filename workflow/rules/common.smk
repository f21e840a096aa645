# The study, the environment of the jobs, and the params of their rules.

import inspect
import json
import os
import sys
from functools import cache
from pathlib import Path

from snakemake.common import overwrite_function_params
from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

ROOT = Path(workflow.current_basedir).parent.parent
sys.path.insert(0, str(ROOT))

from dmlbench.datasets.store.duplicates_file import duplicates_path, searched_stores
from dmlbench.planning.outdated import Inputs
from dmlbench.study.features import features_file, features_of
from dmlbench.study.preflight import check_before_jobs
from dmlbench.study.study import check_study, read_settings
from dmlbench.study.tuning import choice_key
from dmlbench.tracking.sync import tracking_uri
from dmlbench.utils.device import use_chosen_device
from dmlbench.utils.errors import UserError
from dmlbench.utils.files import data_folder
from dmlbench.utils.gpu_lease import hand_down_gpus
from dmlbench.utils.gpus import find_gpus
from dmlbench.workflow.launch import conda_environment
from dmlbench.workflow.output import shorten_output
from dmlbench.workflow.overrides import check_overrides
from dmlbench.workflow.snakemake_jobs import adapt_jobs, has_failed, was_left_out
from dmlbench.workflow.study_lock import lock_study

# Jobs use this Python and this dmlbench, in an activated environment or not, and keep bytecode
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
if not workflow.deployment_settings.deployment_method:
    for name, first in {
        "PATH": Path(sys.executable).parent,
        "PYTHONPATH": ROOT,
    }.items():
        os.environ[name] = os.pathsep.join(
            filter(None, [str(first), os.environ.get(name)])
        )

adapt_jobs()
if workflow.is_main_process:
    shorten_output(logger, workflow)

# If no study is given, run the demo. A `configfile:` without this condition would be merged into
# every study.
if not workflow.configfiles and "study" not in config:

    configfile: str(ROOT / "config/demo.yaml")


try:
    use_chosen_device()
    # In the files and the arguments as they are written, two equal keys are still two
    for path in workflow.configfiles:
        read_settings(path)
    if workflow.is_main_process:
        check_overrides(sys.argv[1:])
    overrides = ["--config"] if workflow.config_settings.config else []
    STUDY = check_study(
        config, ", ".join([*map(str, workflow.configfiles), *overrides])
    )
    DATA = data_folder()
    # For `--sdm conda`; relative to the folder of the rules
    ENVIRONMENT = f"../../envs/{conda_environment()}"
except UserError as error:
    raise WorkflowError(str(error))

STORES = f"{DATA}/stores"
CELL = "{dataset}/{backbone}/{loss}"
RUN_PATH, TRIAL_PATH = f"{CELL}/seed{{seed}}", f"{CELL}/trial{{trial}}"
RUN, TRIAL = STUDY.files.run(RUN_PATH), STUDY.files.trial(TRIAL_PATH)
CHOICE = STUDY.files.choice(CELL)
FEATURES_PATH = "{store}/{features}"
GROUP = "{dataset}/{backbone}"
PICTURES = STUDY.files.gallery(GROUP)


wildcard_constraints:
    dataset="[^/]+",
    backbone="[^/]+",
    loss="[^/]+",
    seed=r"\d+",
    trial=r"\d+",
    store="[^/]+",
    trained="[^/]+",
    weights="[^/]+",
    features="[^/]+",


def called_for_each_job(function):
    """Let Snakemake look up the parameters of `function` once, and not at each call."""
    overwrite_function_params(function, inspect.signature(function).parameters)
    return function


def open_study():
    """Lock the study, and check that its images are there, before the first job."""
    try:
        lock_study(STUDY)
        check_before_jobs(STUDY, Path(STORES))
        if runs_here():
            hand_down_gpus(*gpus_of_jobs())
    except UserError as error:
        raise WorkflowError(str(error))
    if not runs_here():
        write_estimates(cluster_jobs().estimates, STUDY.files.estimates)


def conclude_study():
    """Write the leaderboard with holes, if it was left out because jobs failed."""
    from dmlbench.workflow.conclusion import conclude

    if has_failed(workflow) and was_left_out(workflow, "build_leaderboard"):
        conclude(STUDY, Path(DATA))


def point_to_leaderboard():
    page = STUDY.files.page
    if page.is_file():
        print(f"The leaderboard: {page}; as Markdown, CSV and plots beside it")


def run_of(wildcards):
    local_gpus()  # before Snakemake limits what the job asks for
    try:
        return STUDY.run(RUN_PATH.format(**wildcards))
    except UserError as error:
        raise WorkflowError(str(error))


def trial_of(wildcards):
    local_gpus()
    try:
        return STUDY.trial(TRIAL_PATH.format(**wildcards))
    except UserError as error:
        raise WorkflowError(str(error))


def trials_of(wildcards):
    try:
        return STUDY.tuned_cell(CELL.format(**wildcards))
    except UserError as error:
        raise WorkflowError(str(error))


@called_for_each_job
def stores_of(wildcards):
    """The packed images that a run reads."""
    run = run_of(wildcards)
    files = [f"{STORES}/{store}/manifest.json" for store in run.stores]
    return inputs().made_if_missing(files, run.path in inputs().pending.train)


@called_for_each_job
def store_of_trial(wildcards):
    """The packed images that a trial reads."""
    trial = trial_of(wildcards)
    files = [f"{STORES}/{trial.run.store}/manifest.json"]
    return inputs().made_if_missing(files, trial.path in inputs().pending.trials)


@called_for_each_job
def test_store_of(wildcards):
    """The packed images that a run is tested on."""
    run = run_of(wildcards)
    files = [f"{STORES}/{run.tested.store}/manifest.json"]
    return inputs().made_if_missing(files, run.path in inputs().pending.evaluate)


@called_for_each_job
def duplicates_of(wildcards):
    """The near-duplicates of the training images of a run among its test images, if they are known
    or to be found."""
    run = run_of(wildcards)
    pair = run.searched
    file, pending = duplicates_path(Path(STORES), *pair), inputs().pending
    files = [str(file)] if file.is_file() or pair in pending.duplicates else []
    return inputs().made_if_missing(files, run.path in pending.evaluate)


def stores_of_search(wildcards):
    """The packed images that are searched for near-duplicates."""
    pair = wildcards.trained, wildcards.store
    stores = dict.fromkeys(searched_stores(*pair))
    files = [f"{STORES}/{store}/manifest.json" for store in stores]
    return inputs().made_if_missing(files, pair in inputs().pending.duplicates)


def outdated_search(wildcards):
    return inputs().of_search(wildcards.trained, wildcards.store)


def archives_of(wildcards):
    """The note of a store's archives, if it has some."""
    store = wildcards.store
    files = [f"{STORES}/{store}/archives.json"] * STUDY.stores[store].has_archives
    return inputs().made_if_missing(files, store in inputs().pending.stores)


def archive_source(wildcards):
    """What is fetched for a store. The name of the store depends on it too."""
    data = STUDY.stores[wildcards.store].data
    return [data.type, json.dumps(data.checksums, sort_keys=True)]


def store_source(wildcards):
    """What goes into a store. The name of the store depends on it too: for every study that asks,
    it is the same, so a store that is there is never made again."""
    run = STUDY.stores[wildcards.store]
    return [
        run.data.type,
        str(run.model.side),
        json.dumps(run.data.checksums, sort_keys=True),
        run.data.store,
    ]


def store_options(wildcards):
    """Where the images of a type with options are, and how they are read. The name of the store
    depends on all of it but the folder of the images, which may be moved."""
    return json.dumps(STUDY.stores[wildcards.store].data.options)


def weights_file(run):
    """The weights of timm that a model starts from, if any."""
    staged = run.weights and run.uses_model
    return [f"{DATA}/weights/{run.weights}.safetensors"] if staged else []


@called_for_each_job
def weights_of(wildcards):
    run = run_of(wildcards)
    return inputs().made_if_missing(
        weights_file(run), run.path in inputs().pending.train
    )


@called_for_each_job
def weights_of_trial(wildcards):
    trial = trial_of(wildcards)
    return inputs().made_if_missing(
        weights_file(trial.run), trial.path in inputs().pending.trials
    )


@called_for_each_job
def features_of_run(wildcards):
    """The features that a run with a frozen backbone reads."""
    run = run_of(wildcards)
    return inputs().made_if_missing(
        features_files(run), run.path in inputs().pending.train
    )


@called_for_each_job
def features_of_trial(wildcards):
    trial = trial_of(wildcards)
    return inputs().made_if_missing(
        features_files(trial.run), trial.path in inputs().pending.trials
    )


def features_files(run):
    return [
        str(features_file(Path(STORES), features.path)) for features in features_of(run)
    ]


def store_of_features(wildcards):
    """The packed images that features are computed from."""
    files = [f"{STORES}/{wildcards.store}/manifest.json"]
    return inputs().made_if_missing(files, is_pending_features(wildcards))


def weights_of_features(wildcards):
    run = STUDY.features[path_of_features(wildcards)].run
    return inputs().made_if_missing(weights_file(run), is_pending_features(wildcards))


def outdated_features(wildcards):
    return inputs().of_features(path_of_features(wildcards))


def is_pending_features(wildcards):
    return path_of_features(wildcards) in inputs().pending.features


def path_of_features(wildcards):
    path = FEATURES_PATH.format(**wildcards)
    if path not in STUDY.features:
        raise WorkflowError(f"{path}: the study reads no such features.")
    return path


@called_for_each_job
def train_key(wildcards):
    return run_of(wildcards).train_key


@called_for_each_job
def trial_key(wildcards):
    return trial_of(wildcards).key


@called_for_each_job
def key_of_choice(wildcards):
    return choice_key(trials_of(wildcards))


@called_for_each_job
def eval_key(wildcards):
    return run_of(wildcards).eval_key


@cache
def inputs():
    """The results that jobs read, such that exactly the jobs of `dmlbench plan --diff` run.

    They are read at the first call of this function. A job on a cluster, which has its own
    Snakemake, runs because it was sent: it looks at nothing.
    """
    forced = workflow.dag_settings.forcerun or workflow.dag_settings.forceall
    return Inputs(
        STUDY,
        Path(STORES),
        ignore_date=ancient,
        is_asked=workflow.is_main_process,
        is_forced=bool(forced),
    )


@called_for_each_job
def outdated_trial(wildcards):
    return inputs().of_trial(trial_of(wildcards).path)


@called_for_each_job
def trials_of_choice(wildcards):
    trials_of(wildcards)  # with a message, if the study does not tune this cell
    return inputs().of_choice(CELL.format(**wildcards))


@called_for_each_job
def choice_of(wildcards):
    """What is chosen for a run that is tuned."""
    return inputs().of_training(run_of(wildcards).path)


@called_for_each_job
def training_of(wildcards):
    return inputs().of_scoring(run_of(wildcards).path)


def results_of_group(wildcards):
    group = GROUP.format(**wildcards)
    try:
        STUDY.gallery(group)
    except UserError as error:
        raise WorkflowError(str(error))
    return inputs().of_pictures(group)


def store_of_group(wildcards):
    """The packed images that pictures show."""
    group = GROUP.format(**wildcards)
    files = [f"{STORES}/{STUDY.gallery(group)[0].tested.store}/manifest.json"]
    return inputs().made_if_missing(files, group in inputs().pending.galleries)


def key_of_group(wildcards):
    return STUDY.gallery_key(GROUP.format(**wildcards))


def results_of_runs(_):
    return inputs().of_leaderboard()


def results_and_leaderboard(_):
    return inputs().of_tracking(rules.build_leaderboard.output)


def inputs_of_verdict(_):
    return inputs().of_verdict()
