# Embeddings -> metrics. No model is needed: after a metric is corrected, all runs of a study are
# scored again in minutes. A GPU is used if there are many test images.


rule evaluate:
    input:
        training=training_of,
        store=test_store_of,
        duplicates=duplicates_of,
    output:
        RUN.metrics,
    log:
        RUN.evaluate_log,
    benchmark:
        RUN.evaluate_benchmark
    retries: 0
    group:
        job_of_run
    conda:
        ENVIRONMENT
    threads: STUDY.settings.evaluation.threads
    resources:
        **each_of(resources_of_scoring),
    params:
        key=eval_key,
        study=str(STUDY.files.snapshot),
    message:
        "Score {wildcards.loss} on {wildcards.dataset}, {wildcards.backbone}, seed {wildcards.seed}"
    shell:
        "exec python -m dmlbench --job evaluate {params.study:q}"
        " {wildcards.dataset:q}/{wildcards.backbone:q}/{wildcards.loss:q}/seed{wildcards.seed}"
        " --key {params.key} > {log:q} 2>&1"
