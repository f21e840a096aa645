# Archive -> packed store: decoded once, read by every run.


rule store:
    output:
        # not removed before the job: another study may have made it since, and read it
        manifest=update(f"{STORES}/{{store}}/manifest.json"),
    log:
        f"{STUDY.folder}/logs/data/{{store}}.log",
    benchmark:
        f"{STUDY.folder}/logs/data/{{store}}.benchmark.tsv"
    retries: 0
    conda:
        ENVIRONMENT
    threads: workflow.cores
    resources:
        runtime=240,
        mem_mb=4000,
        options=store_options,  # no param: no reason to pack anew
    params:
        source=store_source,
    message:
        "Pack the images of {wildcards.store}"
    shell:
        "exec python -m dmlbench data pack {params.source:q}"
        ' "$(dirname {output.manifest:q})" --options {resources.options:q} > {log:q} 2>&1'
