# Metrics -> table, plots, and the verdict.


rule tables:
    input:
        runs=results("run.json"),
        metrics=results("metrics.json"),
        histories=results("history.parquet"),
    output:
        f"{STUDY.folder}/leaderboard/leaderboard.csv",
        f"{STUDY.folder}/leaderboard/leaderboard.md",
        expand(
            f"{STUDY.folder}/leaderboard/plots/{{plot}}.{{kind}}",
            plot=["recall", "training"],
            kind=["png", "svg"],
        ),
    log:
        f"{STUDY.folder}/logs/leaderboard.log",
    benchmark:
        f"{STUDY.folder}/logs/leaderboard.benchmark.tsv"
    retries: 0
    conda:
        ENVIRONMENT
    params:
        key=STUDY.leaderboard_key,
        study=SNAPSHOT,
    message:
        "Write the table and the plots"
    shell:
        "exec python -m dmlbench leaderboard {params.study:q} > {log:q} 2>&1"


# Comes last and fails if a run did, after it has removed that run's results: the leaderboard
# stands with its hole, the call ends with an error, and asking again runs that cell alone.
rule verdict:
    input:
        metrics=results("metrics.json"),
        leaderboard=f"{STUDY.folder}/leaderboard/leaderboard.md",
        # before failed runs lose their files
        tracked=[TRACKED] if STUDY.settings.tracking else [],
    output:
        f"{STUDY.folder}/verdict.txt",
    log:
        f"{STUDY.folder}/logs/verdict.log",
    retries: 0
    conda:
        ENVIRONMENT
    params:
        study=SNAPSHOT,
    message:
        "Look whether every run has a result"
    shell:
        "python -m dmlbench verdict {params.study:q} > {log:q} 2>&1 && cp {log:q} {output:q}"
