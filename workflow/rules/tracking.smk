# Results -> MLflow. There is one writer, on this machine: a compute node may not reach the server.
#
# The database is not an output of the rule, because it also holds other studies. The output says
# what was written. The key (results, code, place) says when to write again.


rule track:
    input:
        results_and_leaderboard,
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
        "python -m dmlbench --job track {params.study:q} --key {params.key}"
        " > {output:q}.part 2> {log:q} && mv {output:q}.part {output:q}"
