# Packed store -> embeddings of the test split, one run a job.
#
# `exec`: a signal reaches the trainer itself, which saves and exits with 75. Retries stand in
# the profile: in a rule they would multiply inside one SLURM job.


rule train:
    input:
        stores=stores_of,
        weights=weights_of,
    output:
        # not removed before the job: the trainer of a killed call may have made them since
        run=update(f"{RUN}/run.json"),
        embeddings=update(f"{RUN}/embeddings.npz"),
        history=update(f"{RUN}/history.parquet"),
    log:
        f"{RUN}/log.txt",
    benchmark:
        f"{RUN}/train.benchmark.tsv"
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
        study=SNAPSHOT,
    message:
        "Train {wildcards.loss} on {wildcards.dataset}, {wildcards.backbone}, seed {wildcards.seed}"
    shell:
        "DMLBENCH_CORES={threads} exec python -m dmlbench train {params.study:q}"
        " {wildcards.dataset:q}/{wildcards.backbone:q}/{wildcards.loss:q}/seed{wildcards.seed}"
        " --key {params.key} --max-minutes {resources.runtime} > {log:q} 2>&1"
