# Packed store -> features of its images by a frozen backbone, once for all runs that read them. A
# job that is killed goes on where it was.


rule compute_features:
    input:
        store=store_of_features,
        weights=weights_of_features,
        outdated=outdated_features,
    output:
        features_file(Path(STORES), FEATURES_PATH),
    log:
        STUDY.files.features_log(FEATURES_PATH),
    conda:
        ENVIRONMENT
    threads: features_threads
    resources:
        **each_of(resources_of_features),
    params:
        study=str(STUDY.files.snapshot),
    message:
        "Compute the features {wildcards.features} of {wildcards.store}"
    shell:
        "DMLBENCH_CORES={threads} exec python -m dmlbench --job features {params.study:q}"
        " {wildcards.store:q}/{wildcards.features:q} > {log:q} 2>&1"
