# timm's hub -> pretrained weights. They are fetched on this machine: compute nodes have no
# internet.


rule fetch_weights:
    output:
        f"{DATA}/weights/{{weights}}.safetensors",
    log:
        STUDY.files.weights_log("{weights}"),
    benchmark:
        f"{STUDY.files.logs}/weights/{{weights}}.benchmark.tsv"
    retries: 0
    conda:
        ENVIRONMENT
    message:
        "Fetch the weights {wildcards.weights}"
    shell:
        "exec python -m dmlbench --job weights {wildcards.weights:q} > {log:q} 2>&1"
