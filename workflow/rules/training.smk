# Packed store -> embeddings of the test split, one run per job.
#
# With `exec`, a signal reaches the trainer itself, which saves and exits with code 75. The profile
# sets the retries: in a rule they would multiply inside one SLURM job. On a cluster, a training and
# its scoring are one job.


rule train:
    input:
        stores=stores_of,
        weights=weights_of,
        features=features_of_run,
        choice=choice_of,
    output:
        run=RUN.run,
        embeddings=RUN.embeddings,
        history=RUN.history,
    log:
        RUN.train_log,
    benchmark:
        RUN.train_benchmark
    priority: train_priority
    group:
        job_of_run
    conda:
        ENVIRONMENT
    threads: train_threads
    resources:
        **each_of(resources_of_training, "time_limit"),
    params:
        key=train_key,
        study=str(STUDY.files.snapshot),
    message:
        "Train {wildcards.loss} on {wildcards.dataset}, {wildcards.backbone}, seed {wildcards.seed}"
    shell:
        "DMLBENCH_CORES={threads} exec python -m dmlbench --job train {params.study:q}"
        " {wildcards.dataset:q}/{wildcards.backbone:q}/{wildcards.loss:q}/seed{wildcards.seed}"
        " --key {params.key} {resources.time_limit} >> {log:q} 2>&1"
