# A study from its file to its leaderboard.
#
#   snakemake                                      the demo study, or what is left of it
#   snakemake --configfile config/omniglot.yaml    another study
#   snakemake -n                                   what would run, and why
#   snakemake data                                 only the images: fetched and packed
#   snakemake --report report.zip                  a finished study's tables, plots and provenance
#   snakemake track                                the results to MLflow, even if `tracking: false`
#
# The rules stand in workflow/rules/, one file a room; the work is done by `dmlbench` itself.

from snakemake.utils import min_version

min_version("9.27")


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/datasets.smk"
include: "workflow/rules/weights.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/evaluation.smk"
include: "workflow/rules/leaderboard.smk"
include: "workflow/rules/tracking.smk"


localrules:
    all,
    archives,
    data,
    leaderboard,
    track,
    weights,


onstart:
    open_study()


onsuccess:
    point_to_leaderboard()


rule all:
    default_target: True
    input:
        f"{STUDY.folder}/verdict.txt",


rule data:
    input:
        expand(f"{STORES}/{{store}}/manifest.json", store=STUDY.stores),


rule leaderboard:
    input:
        f"{LEADERBOARD}/leaderboard.md",
