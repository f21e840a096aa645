# Embeddings -> metrics. No model: a metric's fix costs minutes for a whole table. A GPU where the
# test images are many.


rule evaluate:
    input:
        run=f"{RUN}/run.json",
        embeddings=f"{RUN}/embeddings.npz",
        store=test_store_of,
    output:
        f"{RUN}/metrics.json",
    log:
        f"{RUN}/evaluate.log",
    benchmark:
        f"{RUN}/evaluate.benchmark.tsv"
    retries: 0
    conda:
        ENVIRONMENT
    threads: STUDY.settings.evaluation.threads
    resources:
        gpu=score_gpus,
        runtime=120,
        mem_mb=4000,
    params:
        key=eval_key,
        study=SNAPSHOT,
    message:
        "Score {wildcards.loss} on {wildcards.dataset}, {wildcards.backbone}, seed {wildcards.seed}"
    shell:
        "exec python -m dmlbench evaluate {params.study:q}"
        " {wildcards.dataset:q}/{wildcards.backbone:q}/{wildcards.loss:q}/seed{wildcards.seed}"
        " --key {params.key} > {log:q} 2>&1"
