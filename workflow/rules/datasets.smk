# Archive -> packed store: decoded once, read by every run.


rule store:
    output:
        manifest=f"{STORES}/{{store}}/manifest.json",
    log:
        f"{STUDY.folder}/logs/data/{{store}}.log",
    benchmark:
        f"{STUDY.folder}/logs/data/{{store}}.benchmark.tsv"
    conda:
        "../../envs/dmlbench.yaml"
    threads: workflow.cores
    resources:
        runtime=240,
        mem_mb=4000,
        # no param: studies share a store, and another study's name would pack it anew
        study=SNAPSHOT,
    params:
        facts=store_facts,
    message:
        "Pack the images of {wildcards.store}"
    shell:
        "exec python -m dmlbench data {resources.study:q} {wildcards.store:q} > {log:q} 2>&1"
