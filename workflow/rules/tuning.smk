# Packed store -> trials of settings -> the choice of the settings of the final runs. A trial trains
# and scores all of its folds, one after the other, in one job; it sees no test image.


rule trial:
    input:
        stores=store_of_trial,
        weights=weights_of_trial,
        features=features_of_trial,
        outdated=outdated_trial,
    output:
        trial=TRIAL.trial,
        curve=TRIAL.curve,
    log:
        TRIAL.log,
    benchmark:
        TRIAL.benchmark
    priority: trial_priority
    conda:
        ENVIRONMENT
    threads: trial_threads
    resources:
        **each_of(resources_of_trial, "time_limit"),
    params:
        key=trial_key,
        study=str(STUDY.files.snapshot),
    message:
        "Try {wildcards.loss} on {wildcards.dataset}, {wildcards.backbone}, trial {wildcards.trial}"
    shell:
        "DMLBENCH_CORES={threads} exec python -m dmlbench --job trial {params.study:q}"
        " {wildcards.dataset:q}/{wildcards.backbone:q}/{wildcards.loss:q}/trial{wildcards.trial}"
        " --key {params.key} {resources.time_limit} >> {log:q} 2>&1"


rule choose:
    input:
        trials_of_choice,
    output:
        CHOICE.chosen,
    log:
        CHOICE.log,
    retries: 0
    conda:
        ENVIRONMENT
    params:
        key=key_of_choice,
        study=str(STUDY.files.snapshot),
    message:
        "Choose the settings of {wildcards.loss} on {wildcards.dataset}, {wildcards.backbone}"
    shell:
        "exec python -m dmlbench --job choose {params.study:q}"
        " {wildcards.dataset:q}/{wildcards.backbone:q}/{wildcards.loss:q} --key {params.key}"
        " > {log:q} 2>&1"
