# Results -> MLflow. One writer, here and not on a compute node, which may not reach the server.
#
# The database holds other studies as well, so it is no output that Snakemake may remove: the
# output says what was done, and the key (results, code, place) when to do it again.


rule track:
    input:
        runs=results("run.json"),
        metrics=results("metrics.json"),
        histories=results("history.parquet"),
        # as plain names: beside files of a rule, Snakemake hashes all `runs` once for each of them
        leaderboard=list(map(str, rules.tables.output)),
    output:
        TRACKED,
    log:
        f"{STUDY.folder}/logs/tracking.log",
    benchmark:
        f"{STUDY.folder}/logs/tracking.benchmark.tsv"
    retries: 0
    conda:
        ENVIRONMENT
    params:
        key=STUDY.tracking_key(tracking_uri()),
        study=SNAPSHOT,
    message:
        "Write the results to MLflow"
    shell:
        "exec python -m dmlbench track {params.study:q} --key {params.key}"
        " > {output:q} 2> {log:q}"
