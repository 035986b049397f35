"""What a run was: its command, data, machine and time; and what its network costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from rpgmt.run_report.html import Html, details, joined, table, tag
from rpgmt.run_report.runs import Run
from rpgmt.tables import counts_rows

COUNTS = {"trainable", "bank", "generated", "fixed"}


def title(run: Run) -> str:
    """The run's name, its task, and its network in a few words."""
    model = run.config.get("model", {})
    network = f"{model['stages']} stages" if "stages" in model else model.get("network")
    words = [run.name, run.task, network, f"sharing {model['sharing']}" if "sharing" in model else None]
    return " · ".join(str(word) for word in words if word)


def figure(value: float | None) -> str:
    """A metric as people read it; n/a without samples."""
    if value is None:
        return "n/a"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.1f}"


def count(value: float) -> str:
    """Parameters in short, e.g. 1.05M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:g}"


def duration(seconds: float) -> str:
    """e.g. 1:02:03."""
    return str(timedelta(seconds=round(seconds)))


def tiles(run: Run) -> Html | None:
    """The figures that one asks for first."""
    found: list[tuple[str, str]] = []
    if run.main:
        last = f", of stage {len(run.stage_names)}" if len(run.stage_names) > 1 else ""
        found.append((f"{run.main[0]}, last step{last}", figure(run.val[run.main[0]])))
    if run.best:
        found.append((f"{run.main[0]}, best step: {run.best[0]:,.0f}", figure(run.best[1])))
    parameters = run.record.get("parameters", {})
    if parameters.keys() >= COUNTS:
        found.append(("trainable parameters", count(parameters["trainable"])))
        if parameters["bank"]:
            part = parameters["trainable"] / (parameters["generated"] + parameters["fixed"])
            then = ("stored" if "signed" in parameters else "stored and communicated") if part < 1 else "nothing is saved"
            found.append((f"of the parameters without sharing: {then}", f"{part:.1%}"))
    if "macs" in run.record:
        found.append(("multiply-accumulates an image", count(run.record["macs"])))
    if "seconds" in run.record:
        found.append((f"for {run.record['steps']:,} steps", duration(run.record["seconds"])))
    boxes = [tag("div", tag("dt", name), tag("dd", value)) for name, value in found]
    return tag("dl", *boxes, class_="tiles") if boxes else None


def run_section(run: Run) -> Html:
    """Commands, and a table of the rest; the whole config folded away."""
    if run.commands:
        commands = [tag("pre", tag("code", *_words_apart(command))) for _, command in run.commands]
        when = [
            tag("p", f"{'Started' if not n else 'Gone on with'} {when}", class_="note")
            for n, (when, _) in enumerate(run.commands)
        ]
        said = joined(part for pair in zip(when, commands, strict=True) for part in pair)
    else:
        said = tag("p", "Its command was not recorded.", class_="note")
    return joined(
        [
            said,
            table("What was trained, on what, with what", [], facts(run).items(), class_="facts"),
            details("The whole config (config.yaml)", tag("pre", tag("code", run.config_text))),
        ]
    )


def _words_apart(command: str) -> Sequence[object]:
    """Lines break between the words of a command, not at the hyphens of its flags."""
    words = [tag("span", word) for word in command.split(" ")]
    return [part for word in words for part in (" ", word)][1:]


def facts(run: Run) -> dict[str, str]:
    """The facts of a run by their names; those that are known."""
    record, train = run.record, run.config.get("train", {})
    data = record.get("data") or {"name": run.config.get("data", {}).get("name")}
    found = {
        "data": _words(data) if isinstance(data, Mapping) else data,
        "seed": record.get("seed", train.get("seed")),
        "steps": f"{record['steps']:,}" if "steps" in record else None,
        "time": duration(record["seconds"]) if "seconds" in record else None,
        "hardware": _hardware(record.get("hardware")),
        "training": _words({key: train[key] for key in ("optimizer", "lr", "batch_size", "precision") if key in train}),
        "versions": _words(record.get("versions", {})),
    }
    return {name: str(value) for name, value in found.items() if value not in (None, "")}


def counts_section(run: Run) -> Html | None:
    """The counting table, and what a smaller number is smaller than."""
    record = run.record
    parameters = record.get("parameters", {})
    if not parameters.keys() >= COUNTS:
        return None
    counts: dict[str, Any] = {key: record[key] for key in ("parameters", "macs") if key in record}
    if run.buffers is not None:
        counts["buffers"] = run.buffers
    rows = counts_rows(counts, record.get("bytes", {}).get("model_file"))
    return joined(
        [tag("p", saved(parameters)), table("The network in numbers", ["what", "count", "remark"], rows, class_="counts")]
    )


def saved(parameters: Mapping[str, int]) -> str:
    """What is saved, of what, and what is not."""
    if not parameters["bank"]:
        return "No weight of this network is generated from a bank."
    plain = parameters["generated"] + parameters["fixed"]
    trainable = parameters["trainable"]
    counted = f"{parameters['bank']:,} in banks make {parameters['generated']:,} weights, {parameters['fixed']:,} are fixed."
    without = f"the {plain:,} of the same network without sharing"
    if trainable < plain:
        than = f"The trainable parameters are {1 - trainable / plain:.1%} smaller than {without}"
        then = "That saves parameters that are stored and communicated"
        if "signed" in parameters:
            then = "That saves what is stored, 32 learned signs counted as a number; trained are all weights"
    elif trainable == plain:
        than, then = (
            f"The trainable parameters are as many as {without}",
            "The bank is as large as the network: nothing is saved",
        )
    else:
        than = f"The trainable parameters are {trainable / plain - 1:.1%} larger than {without}"
        then = "The bank is larger than the network: nothing is saved"
    return f"{than}: {counted} {then}; the multiply-accumulates stay the same."


def _hardware(found: Mapping[str, Any] | None) -> str | None:
    if not found:
        return None
    several = f"{found['processes']} × " if found.get("processes", 1) > 1 else ""
    return f"{several}{found['device']}; {found['cores']} cores, {found['processor']}"


def _words(found: Mapping[str, Any]) -> str:
    words = {key.replace("_", " "): _value(value) for key, value in found.items() if value is not None}
    return "; ".join(value if key == "name" else f"{key} {value}" for key, value in words.items())


def _value(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
