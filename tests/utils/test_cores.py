from dmlbench.utils.cores import usable_cores


def test_a_job_uses_no_more_cores_than_its_workflow_gives_it(monkeypatch):
    monkeypatch.delenv("DMLBENCH_CORES", raising=False)
    all_cores = usable_cores()
    for given, used in ((1, 1), (10 * all_cores, all_cores)):
        monkeypatch.setenv("DMLBENCH_CORES", str(given))
        assert usable_cores() == used
