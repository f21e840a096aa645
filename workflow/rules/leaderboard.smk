# Metrics -> table, plots, and the verdict. What is marked `report()` is shown by
# `snakemake --report report.zip`; the marks are no reason to run anything again.

LEADERBOARD = f"{STUDY.folder}/leaderboard"
PLOTS = {
    "recall": "MAP@R and Recall@1",
    "recall_curves": "Recall@K against K",
    "time": "Recall@1 against training time",
    "training": "loss against epoch",
}


rule tables:
    input:
        runs=results("run.json"),
        metrics=results("metrics.json"),
        histories=results("history.parquet"),
    output:
        report(
            f"{LEADERBOARD}/leaderboard.html",
            caption="../report/leaderboard.rst",
            category="Leaderboard",
            labels={"study": STUDY.name, "table": "to look at, to sort"},
        ),
        report(
            f"{LEADERBOARD}/leaderboard.csv",
            caption="../report/results.rst",
            category="Data",
            labels={"study": STUDY.name, "data": "every result, as CSV"},
        ),
        f"{LEADERBOARD}/leaderboard.md",
        [
            report(
                f"{LEADERBOARD}/plots/{plot}.png",
                caption=f"../report/{plot}.rst",
                category="Plots",
                labels={"study": STUDY.name, "plot": title},
            )
            for plot, title in PLOTS.items()
        ],
        [
            report(
                f"{LEADERBOARD}/plots/{tree}.png",
                caption="../report/tree.rst",
                category="Plots",
                labels={"study": STUDY.name, "plot": tree},
            )
            for tree in STUDY.trees
        ],
        expand(f"{LEADERBOARD}/plots/{{plot}}.svg", plot=[*PLOTS, *STUDY.trees]),
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
        leaderboard=f"{LEADERBOARD}/leaderboard.md",
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
