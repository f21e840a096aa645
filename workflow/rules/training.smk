# Packed store -> embeddings of the test split, one run per job.
#
# With `exec`, a signal reaches the trainer itself, which saves and exits with code 75. The profile
# sets the retries: in a rule they would multiply inside one SLURM job.


rule train:
    input:
        stores=stores_of,
        weights=weights_of,
    output:
        # `update` keeps old files: the trainer of a killed call may have finished them meanwhile
        run=update(RUN.run),
        embeddings=update(RUN.embeddings),
        history=update(RUN.history),
    log:
        RUN.train_log,
    benchmark:
        RUN.train_benchmark
    priority: train_priority
    conda:
        ENVIRONMENT
    threads: train_threads
    resources:
        gpu=train_gpus,
        runtime=720,
        mem_mb=8000,
    params:
        key=train_key,
        study=str(STUDY.files.snapshot),
    message:
        "Train {wildcards.loss} on {wildcards.dataset}, {wildcards.backbone}, seed {wildcards.seed}"
    shell:
        "DMLBENCH_CORES={threads} exec python -m dmlbench train {params.study:q}"
        " {wildcards.dataset:q}/{wildcards.backbone:q}/{wildcards.loss:q}/seed{wildcards.seed}"
        " --key {params.key} --max-minutes {resources.runtime} > {log:q} 2>&1"
