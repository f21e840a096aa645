from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dmlbench.evaluation.evaluate import QueryScores
from dmlbench.evaluation.query_file import write_query_scores
from dmlbench.study.result_files import StudyFiles

from ..result_edits import edit_result

Planned = dict[str, Any]
RECIPE = {"epochs": 8, "batch_size": 80, "optimizer": "adamw", "augmentation": {"flip": False}}
VERSIONS = {"python": "3.11.9", "torch": "2.15.0", "timm": "1.0.20"}


class Results:
    """Made-up runs: `add` writes the result files of a run, and `runs` is the plan."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs: list[Planned] = []

    def add(
        self,
        loss: str,
        seed: int = 0,
        metrics: dict[str, float] | None = None,
        *,
        dataset: str = "letters",
        tested_on: str | None = None,
        backbone: str = "tiny",
        protocols: tuple[str, ...] = ("zero_shot",),
        status: str = "ok",
        error: str | None = None,
        history: list[float] | None = None,
        recipe: dict[str, Any] | None = None,
        settings: dict[str, Any] | None = None,
        chosen: dict[str, Any] | None = None,
        learnt: dict[str, float] | None = None,
        levels: tuple[str, ...] = (),
        tree: str | None = None,
        queries: np.ndarray | None = None,
        **provenance: Any,
    ) -> Planned:
        path = f"{dataset}/{backbone}/{loss}/seed{seed}"
        keys = {"train_key": f"t-{path}", "eval_key": f"e-{path}"}
        names = {"dataset": dataset, "backbone": backbone, "loss": loss, "seed": seed}
        failure = {"message": error or f"it is {status}", "tail": ["..."]}
        failure = None if status == "ok" else failure
        rows = [
            {"protocol": protocol, "metric": metric, "value": value}
            for protocol in protocols
            for metric, value in ((metrics or {"queries": 9.0}) if status == "ok" else {}).items()
        ]
        made_by = {
            "git_commit": "c0ffee",
            "versions": VERSIONS,
            "device": "cpu (test)",
            "driver": None,
            "host": "here",
            "started": "2020-01-01T00:00:00+00:00",
            "train_seconds": 100.0,
            "peak_memory_mb": 512.5,
            "images_per_second": 1234.5,
        }
        outcome = {"train_key": keys["train_key"], "status": status, "error": failure, "code": {}}
        planned_settings = {
            "recipe": recipe or RECIPE,
            "dataset": {"facts": {"levels": [*levels]}},
            **(settings or {}),
        }
        files = self.files.run(path)
        files.folder.mkdir(parents=True, exist_ok=True)
        epochs = np.arange(1, len(history or []) + 1)
        columns = {"epoch": epochs, "loss": np.array(history or [], dtype=float)}
        columns |= {name: np.full(len(epochs), value) for name, value in (learnt or {}).items()}
        pd.DataFrame(columns).to_parquet(files.history)
        named = {"study": "made", **names, "settings": planned_settings}
        if chosen:  # as a training writes it: with the settings that were chosen
            planned_recipe = planned_settings["recipe"].items()
            trained = {name: chosen["recipe"].get(name, value) for name, value in planned_recipe}
            named |= {"chosen": chosen, "settings": planned_settings | {"recipe": trained}}
        files.write_run({**named, **outcome, "provenance": {**made_by, **provenance}})
        if queries is not None:
            self.write_queries(path, protocols[0], queries)
        scored = {**keys, **outcome, "metrics": rows, "settings": {}}
        files.write_metrics(scored, files.load_run())
        planned = {**names, "tested_on": tested_on or dataset, "path": path, "tree": tree, **keys}
        planned["gallery"] = None
        planned["settings"] = planned_settings
        self.runs.append(planned)
        return self.runs[-1]

    def write_queries(self, path: str, protocol: str, values: np.ndarray) -> None:
        """Write the MAP@R of single queries (classes, queries of each class)."""
        ids, labels = np.arange(values.size), np.repeat(np.arange(len(values)), values.shape[1])
        first, scores = np.zeros_like(ids), values.ravel()
        of_queries = QueryScores(protocol, first, ids, labels, scores, np.round(scores))
        write_query_scores(self.files.run(path).queries, [of_queries])

    def tune(
        self,
        loss: str,
        scores: list[float | None],
        space: dict[str, list[Any]],
        options: list[dict[str, float]],
        *,
        dataset: str = "letters",
        backbone: str = "tiny",
        **tuning: Any,
    ) -> dict[str, Any]:
        """Write chosen.json of a cell whose trials have these scores (None: it diverged). Returns
        the settings that its runs are added with, as `settings`, and what was chosen, as
        `chosen`."""
        trials = [
            {
                "trial": number,
                "status": "diverged" if score is None else "ok",
                "options": values,
                "best_epoch": None if score is None else 3,
                "best_score": score,
                "steps": 10 if score is None else 40,
                "wall_seconds": 30.0,
            }
            for number, (score, values) in enumerate(zip(scores, options, strict=True))
        ]
        done = [trial for trial in trials if trial["best_score"] is not None]
        best = max(done, key=lambda t: t["best_score"], default=None)
        chosen = None
        if best:
            names = [name for name in space if not name.startswith("recipe.")]
            values = {name: best["options"][name] for name in names}
            lr = 0.1 * best["options"].get("recipe.lr_factor", 1.0)
            chosen = {"trial": best["trial"], "loss_options": values, "epochs": 3}
            chosen["recipe"] = {"lr": lr, "head_lr_factor": 1.0}
        content = {
            "key": "c",
            "status": "ok" if best else "error",
            "error": None if best else {"message": "every trial\nfailed", "tail": []},
            "chosen": chosen,
            "score": best["best_score"] if best else None,
            "trials": trials,
            "spent": {
                "trials": len(trials),
                "steps": sum(trial["steps"] for trial in trials),
                "seconds": 30.0 * len(trials),
            },
            "made_from": {"0": "0" * 64},
        }
        choice = self.files.choice(f"{dataset}/{backbone}/{loss}")
        choice.folder.mkdir(parents=True, exist_ok=True)
        choice.write_chosen(content)
        specification = {"folds": 4, "use_folds": None, "classes": "random", "metric": "map@r"}
        specification |= {"every": 1, "seed": 0, "space": space, **tuning}
        return {"settings": {"tuning": specification}, "chosen": chosen}

    @property
    def files(self) -> StudyFiles:
        return StudyFiles(self.folder)

    def edit(self, path: str, **changes: Any) -> None:
        edit_result(self.folder / "runs" / path, **changes)


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "results")


@pytest.fixture
def study(results: Results) -> Callable[..., Results]:
    """A function that fills `results` with losses x seeds, and controls, with plausible scores."""

    def fill(
        losses: tuple[str, ...], seeds: int = 3, *, controls: bool = True, **where: Any
    ) -> Results:
        rng = np.random.default_rng(len(losses))

        def metrics(level: float) -> dict[str, float]:
            level = float(level)
            recalls = {
                f"recall@{k}": 1 - (1 - level) ** (1 + 0.5 * i) for i, k in enumerate((1, 2, 4, 8))
            }
            others = {"map@r": level / 2.2, "r_precision": level / 1.7, "nmi": 0.3 + level / 2}
            return {**recalls, **others, "queries": 980.0, "lone_queries": 0.0}

        for control, level in (("random", 0.02), ("untrained", 0.21), ("oracle", None)):
            if controls:
                values = (
                    metrics(level)
                    if level
                    else dict.fromkeys(metrics(0.0), 1.0) | {"queries": 980.0}
                )
                results.add(
                    f"control_{control}",
                    0,
                    values,
                    train_seconds=0.0,
                    images_per_second=None,
                    **where,
                )
        for index, loss in enumerate(losses):
            start, level = 10 ** rng.uniform(-1, 1), rng.uniform(0.4, 0.62)
            for seed in range(seeds):
                curve = start * (0.2 + 0.8 * np.exp(-np.arange(8) / 2)) * rng.normal(1, 0.02, 8)
                results.add(
                    loss,
                    seed,
                    metrics(level + 0.012 * rng.normal()),
                    history=list(curve),
                    train_seconds=60.0 + 20 * index,
                    **where,
                )
        return results

    return fill
