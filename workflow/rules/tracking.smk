# Results -> MLflow. There is one writer, on this machine: a compute node may not reach the server.
#
# The database is not an output of the rule, because Snakemake may remove outputs, and the database
# also holds other studies. The output says what was written. The key (results, code, place) says
# when to write again.


rule track:
    input:
        runs=files_of_runs("run"),
        metrics=files_of_runs("metrics"),
        histories=files_of_runs("history"),
        # plain names: for each output of a rule here, Snakemake would hash all `runs` once more
        leaderboard=list(map(str, rules.build_leaderboard.output)),
    output:
        STUDY.files.tracked,
    log:
        STUDY.files.tracking_log,
    benchmark:
        f"{STUDY.files.logs}/tracking.benchmark.tsv"
    retries: 0
    conda:
        ENVIRONMENT
    params:
        key=STUDY.tracking_key(tracking_uri()),
        study=str(STUDY.files.snapshot),
    message:
        "Write the results to MLflow"
    shell:
        "exec python -m dmlbench --job track {params.study:q} --key {params.key}"
        " > {output:q} 2> {log:q}"
