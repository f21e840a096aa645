"""`snakemake --workflow-profile profiles/slurm` on a real SLURM, from a machine without GPUs."""

from ..project import Project, copy_project

PROFILE = ("--workflow-profile", "profiles/slurm")


def asked(project):
    """What the jobs of the project asked SLURM for, by their comment, in the order of time."""
    jobs = [job for job in project.slurm.jobs().values() if job["WorkDir"] == str(project.folder)]
    columns = ("TresPerJob", "NumCPUs", "TimeLimit", "MinMemoryNode", "JobState")
    return [(job["Comment"], *(job.get(name) for name in columns)) for job in jobs]


def test_a_run_is_one_job_with_a_gpu_cores_time_and_memory_and_gives_the_same_bits(
    cluster_project, tiny, data_folder, tmp_path
):
    tiny["cluster"] = {"partition": "main", "cores_per_gpu": 3, "max_minutes": 30}
    cluster_project.write(tiny)
    local = Project(copy_project(tmp_path / "local"), data_folder)
    local.write(tiny)
    local.run()
    # one core: the cores of the machine that submits limit no job
    output = cluster_project.run(*PROFILE, cores=1)
    assert "Exiting because a job execution failed" not in output
    run = "rule_run_letters_tiny_{}_0_evaluate_train"
    on_gpu = ("gres:gpu:1", "3", "00:20:00", "5600M", "COMPLETED")
    assert sorted(asked(cluster_project)) == [
        (run.format("control_random"), None, "1", "00:15:00", "1800M", "COMPLETED"),
        (run.format("normalized_softmax"), *on_gpu),
        (run.format("proxy_anchor"), *on_gpu),
    ]
    assert cluster_project.metrics() == local.metrics()
    for loss in ("normalized_softmax", "proxy_anchor"):
        here = cluster_project.embeddings(loss)
        assert (here == local.embeddings(loss)).all()

    # a metric's fix: scores alone, without a GPU
    cluster_project.write(tiny | {"evaluation": {"recall_at": [1, 3]}})
    before = len(asked(cluster_project))
    cluster_project.run(*PROFILE)
    score = "rule_evaluate_wildcards_letters_tiny_{}_0"
    alone = (None, "1", "00:10:00", "1800M", "COMPLETED")
    assert sorted(asked(cluster_project)[before:]) == [
        (score.format(loss), *alone)
        for loss in ("control_random", "normalized_softmax", "proxy_anchor")
    ]
