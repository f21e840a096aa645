# Embeddings and images -> pages of pictures, if the study asks for some (`report`). The other files of
# the folder are no outputs: Snakemake would remove pages that need not be drawn again.


rule draw_pictures:
    input:
        results=results_of_group,
        store=store_of_group,
    output:
        PICTURES.made_of,
    log:
        PICTURES.log,
    retries: 0
    conda:
        ENVIRONMENT
    threads: picture_threads
    resources:
        **each_of(resources_of_packing),
    params:
        key=key_of_group,
        study=str(STUDY.files.snapshot),
    message:
        "Draw the pictures of {wildcards.dataset}, {wildcards.backbone}"
    shell:
        "DMLBENCH_CORES={threads} exec python -m dmlbench --job pictures {params.study:q}"
        " {wildcards.dataset:q}/{wildcards.backbone:q} --key {params.key} > {log:q} 2>&1"
