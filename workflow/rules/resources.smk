# Cores, GPUs, time and memory of the jobs: on this machine, or as they are submitted to a cluster.

from dmlbench.planning.job_estimates import (
    estimate_jobs,
    read_estimates,
    write_estimates,
)
from dmlbench.planning.job_requests import ClusterJobs, site_names
from dmlbench.workflow.resources import PACK_CORES, PICTURE_CORES, cluster_threads
from dmlbench.workflow.resources import scores_on_gpu, training_threads

CLUSTER = STUDY.settings.cluster
MAX_GROUP_NAME = 150  # characters: the folder of the job's log has this name


def runs_here():
    """Whether jobs share this machine. On a cluster each has its own GPU and cores."""
    return workflow.local_exec and workflow.is_main_process


@cache
def local_gpus():
    """GPUs of this machine that jobs may use: as `--resources gpu=2` says, else all.

    They are counted at the first call of this function: while Snakemake reads this file, it does
    not know yet whether it will run jobs here.
    """
    if not runs_here():
        if workflow.is_main_process:
            # the cores of this machine limit no job of a cluster
            workflow.global_resources["_cores"] = None
        return 0
    asked = asked_gpus()
    count = len(gpus_here().usable) if asked is None else asked
    workflow.register_resource("gpu", count * STUDY.settings.runs_per_gpu)
    return count


@cache
def asked_gpus():
    """The number in `--resources gpu=2`; None if the call has none."""
    return workflow.global_resources.get("gpu").value


@cache
def gpus_here():
    """The GPUs of this machine, and which of them this call may use."""
    return find_gpus()


def gpus_of_jobs():
    """UUIDs of the GPUs of all jobs; and how many of them jobs use, or None for all."""
    count, runs_per_gpu = local_gpus(), STUDY.settings.runs_per_gpu
    if asked_gpus() == 0:
        return [], None
    gpus_here().check()
    gpus_here().check_sharing(runs_per_gpu)
    # runs that share GPUs would spread over all
    return [gpu.uuid for gpu in gpus_here().usable], count if runs_per_gpu > 1 else None


def runs_at_once():
    """How many runs share the GPUs of this machine."""
    return local_gpus() * STUDY.settings.runs_per_gpu


@cache
def cluster_jobs():
    """What jobs ask a cluster for. A job must know what it was submitted with, so it reads the
    estimates that the process wrote which submitted it."""
    if workflow.is_main_process:
        estimates = estimate_jobs(STUDY, Path(STORES))
    else:
        estimates = read_estimates(STUDY.files.estimates)
    return ClusterJobs(STUDY, Path(STORES), estimates)


# Here, jobs have no time limit, and Snakemake asks for a number of megabytes
HERE = {"mem_mb": 0}


@called_for_each_job
def job_of_run(wildcards):
    """The group of a training and its scoring, which a cluster runs as one job. A scoring whose
    training is not run is in no group. Without a cluster there are no groups."""
    if runs_here() or not CLUSTER.score_with_training:
        return None
    settings = workflow.dag_settings
    if workflow.is_main_process:
        pending = inputs().pending.train
        trains = (
            run_of(wildcards).path in pending or settings.forcerun or settings.forceall
        )
    else:  # a job knows what it was sent for
        trains = {"train", "evaluate"} <= {*settings.allowed_rules}
    if not trains:
        return None
    group = f"run_{'_'.join(wildcards)}"[:MAX_GROUP_NAME]
    workflow.parent_groupids[group] = "run"  # for --group-components run=3
    return group


def resources_of_training(wildcards, attempt):
    run = run_of(wildcards)
    if runs_here():
        return HERE | {"gpu": int(run.uses_model), "time_limit": ""}
    return cluster_jobs().training(run, attempt, bool(job_of_run(wildcards)))


def resources_of_trial(wildcards, attempt):
    trial = trial_of(wildcards)
    if runs_here():
        return HERE | {"gpu": int(trial.run.uses_model), "time_limit": ""}
    return cluster_jobs().trial(trial, attempt)


def resources_of_scoring(wildcards, attempt):
    run = run_of(wildcards)
    if runs_here():
        on_gpu = scores_on_gpu(run, Path(STORES) / run.tested.store)
        return HERE | {"gpu": int(on_gpu)}
    return cluster_jobs().scoring(run, attempt, not job_of_run(wildcards))


def resources_of_features(_, attempt):
    if runs_here():
        return HERE | {"gpu": 1}
    return cluster_jobs().features()


def resources_of_packing(_, attempt):
    return HERE if runs_here() else cluster_jobs().packing()


def each_of(resources, *more_names):
    """The resources of a rule. Snakemake asks for each of them by itself, job by job."""
    answers = {}

    def value_of(name):
        @called_for_each_job
        def value(wildcards, attempt):
            question = (*wildcards, attempt)
            if question not in answers:
                answers[question] = resources(wildcards, attempt)
            return answers[question].get(name)

        return value

    names = ["gpu", "runtime", "mem_mb", *more_names, *sorted(site_names(CLUSTER))]
    return {name: value_of(name) for name in dict.fromkeys(names)}


@called_for_each_job
def train_threads(wildcards):
    return threads_of(run_of(wildcards))


def features_threads(wildcards):
    return threads_of(STUDY.features[path_of_features(wildcards)].run)


@called_for_each_job
def trial_threads(wildcards):
    return threads_of(trial_of(wildcards).run)


def threads_of(run):
    """The cores of a job that trains `run`."""
    if runs_here():
        return training_threads(run, workflow.cores, runs_at_once())
    return cluster_threads(run, CLUSTER)


def picture_threads(_):
    return min(PICTURE_CORES, workflow.cores) if runs_here() else PICTURE_CORES


def pack_threads(_):
    return workflow.cores if runs_here() else PACK_CORES


@called_for_each_job
def train_priority(wildcards):
    return priority_of(run_of(wildcards))


@called_for_each_job
def trial_priority(wildcards):
    return priority_of(trial_of(wildcards).run)


def priority_of(run):
    """With GPUs, trainings come first: no GPU waits for cores that scorings use."""
    return int(run.uses_model) if local_gpus() else 0
