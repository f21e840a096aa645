# Archive -> packed store: decoded once, read by every run.


rule store:
    output:
        manifest=f"{STORES}/{{store}}/manifest.json",
    log:
        f"{STUDY.folder}/logs/data/{{store}}.log",
    benchmark:
        f"{STUDY.folder}/logs/data/{{store}}.benchmark.tsv"
    retries: 0
    conda:
        "../../envs/dmlbench.yaml"
    threads: workflow.cores
    resources:
        runtime=240,
        mem_mb=4000,
    params:
        source=store_source,
    message:
        "Pack the images of {wildcards.store}"
    shell:
        "exec python -m dmlbench data {params.source:q}"
        ' "$(dirname {output.manifest:q})" > {log:q} 2>&1'
