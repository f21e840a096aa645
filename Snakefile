# A study from its file to its leaderboard.
#
#   snakemake                                      the demo study, or the rest of it
#   snakemake --configfile config/omniglot.yaml    another study; or: dmlbench run, from any folder
#   snakemake -n                                   what would run; why: dmlbench plan STUDY --diff
#   snakemake data                                 only fetch and pack the images
#   snakemake --report report.zip                  tables, plots and provenance of a finished study
#   snakemake track                                write to MLflow, even with `tracking: false`
#
# The rules are in workflow/rules/, one file per room. The jobs call `dmlbench`, which does the work.

from snakemake.utils import min_version

min_version("9.27")


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/resources.smk"
include: "workflow/rules/datasets.smk"
include: "workflow/rules/weights.smk"
include: "workflow/rules/features.smk"
include: "workflow/rules/tuning.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/evaluation.smk"
include: "workflow/rules/leaderboard.smk"
include: "workflow/rules/gallery.smk"
include: "workflow/rules/tracking.smk"


localrules:
    all,
    fetch_archives,
    data,
    leaderboard,
    track,
    fetch_weights,
    choose,
    build_leaderboard,
    verdict,


onstart:
    open_study()


onsuccess:
    point_to_leaderboard()


onerror:
    conclude_study()


rule all:
    default_target: True
    input:
        STUDY.files.verdict,


rule data:
    input:
        expand(f"{STORES}/{{store}}/manifest.json", store=STUDY.stores),


rule leaderboard:
    input:
        STUDY.files.table,
