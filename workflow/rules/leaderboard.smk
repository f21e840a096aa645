# Metrics -> table, plots and the verdict. `snakemake --report report.zip` shows the files that are
# marked with `report()`. The marks are no reason to run anything again.

LEADERBOARD = STUDY.files.leaderboard
PLOTS = {
    "recall": "MAP@R and Recall@1",
    "recall_curves": "Recall@K against K",
    "time": "Recall@1 against training time and images seen",
    "training": "loss against epoch",
}
if STUDY.settings.tuning:
    PLOTS |= {
        "trials": "validation score against trials",
        "trial_settings": "settings of the best trials",
    }
if STUDY.has_ladder:
    PLOTS |= {"ladder": "scores against what is unseen in training"}
if STUDY.has_mean_ranks:
    PLOTS |= {"critical_difference": "mean ranks over data sets"}
if STUDY.settings.track == "paper":
    PLOTS |= {"published": "published numbers against those here"}


rule build_leaderboard:
    input:
        results_of_runs,
    output:
        report(
            STUDY.files.page,
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
        STUDY.files.table,
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
        expand(
            f"{LEADERBOARD}/plots/{{plot}}.{{kind}}",
            plot=[*PLOTS, *STUDY.trees],
            kind=["svg", "pdf"],
        ),
    log:
        STUDY.files.leaderboard_log,
    benchmark:
        f"{STUDY.files.logs}/leaderboard.benchmark.tsv"
    retries: 0
    conda:
        ENVIRONMENT
    threads: 2
    params:
        study=str(STUDY.files.snapshot),
    message:
        "Write the table and the plots"
    shell:
        "DMLBENCH_CORES={threads} exec python -m dmlbench --job leaderboard {params.study:q} "
        "> {log:q} 2>&1"


# This comes last. If runs failed, it removes their results and fails: the leaderboard keeps its
# holes, the call ends with an error, and the next call runs only the failed runs.
rule verdict:
    input:
        inputs_of_verdict,
    output:
        STUDY.files.verdict,
    log:
        f"{STUDY.files.logs}/verdict.log",
    retries: 0
    conda:
        ENVIRONMENT
    params:
        study=str(STUDY.files.snapshot),
    message:
        "Look whether every run has a result"
    shell:
        "exec python -m dmlbench --job verdict {params.study:q} > {log:q} 2>&1"
