# Archives -> packed store: fetched on a machine with internet, decoded once, read by every run.
#
# Each store has its own note of what was fetched (archives.json). So a store that exists depends on
# no job, even while another store of the same images is made: it is not packed again, and its
# archives may be deleted.


rule fetch_archives:
    output:
        f"{STORES}/{{store}}/archives.json",
    log:
        STUDY.files.fetching_log("{store}"),
    retries: 0
    conda:
        ENVIRONMENT
    resources:
        options=store_options,  # no param: no reason to fetch anew
    params:
        source=archive_source,
    message:
        "Fetch the archives of {wildcards.store}, if they are not there; see {log}"
    shell:
        "python -m dmlbench --job data fetch {params.source:q} --options {resources.options:q}"
        " > {output:q}.part 2> {log:q} && mv {output:q}.part {output:q}"


rule pack_store:
    input:
        archives=archives_of,
    output:
        manifest=f"{STORES}/{{store}}/manifest.json",
    log:
        STUDY.files.packing_log("{store}"),
    benchmark:
        f"{STUDY.files.logs}/data/{{store}}.benchmark.tsv"
    retries: 0
    conda:
        ENVIRONMENT
    threads: pack_threads
    resources:
        **each_of(resources_of_packing),
        options=store_options,  # no param: no reason to pack anew
    params:
        source=store_source,
    message:
        "Pack the images of {wildcards.store}"
    shell:
        "DMLBENCH_CORES={threads} exec python -m dmlbench --job data pack {params.source:q}"
        ' "$(dirname {output.manifest:q})" --options {resources.options:q} > {log:q} 2>&1'


# Which test images are near-duplicates of training images: the scores leave them out once more. The
# file is in the store of the test images, so it is made once for all studies.
rule find_duplicates:
    input:
        stores=stores_of_search,
        outdated=outdated_search,
    output:
        f"{STORES}/{{store}}/near_duplicates/{{trained}}.json",
    log:
        STUDY.files.duplicates_log("{trained}", "{store}"),
    retries: 0
    conda:
        ENVIRONMENT
    threads: pack_threads
    resources:
        **each_of(resources_of_packing),
    message:
        "Find near-duplicates between the training images of {wildcards.trained} and the test "
        "images of {wildcards.store}"
    shell:
        "DMLBENCH_CORES={threads} exec python -m dmlbench --job data duplicates {wildcards.store:q}"
        " --train {wildcards.trained:q} > {log:q} 2>&1"
