"""What a run has found: outcomes of checks and measured figures, as JSON, a page and a table.

A figure is here only if it was measured in this run; what was not is named, with the reason.
"""

import dataclasses
import json
import math

PASSED, FAILED, TIMED_OUT, MISSING = "passed", "FAILED", "TIMED OUT", "MISSING"
SKIPPED, PART = "skipped", "passed in part"  # neither is held against a run


@dataclasses.dataclass
class Outcome:
    part: str
    name: str
    outcome: str
    seconds: float = 0
    detail: str = ""


@dataclasses.dataclass
class Figure:
    """`ratio` is what is held against the limit; without a limit it may be None."""

    part: str
    name: str
    value: float
    unit: str
    ratio: float = None
    of: str = ""  # what the ratio is to
    at_least: float = None
    at_most: float = None
    runs: list = dataclasses.field(default_factory=list)  # values; theirs beside them where named
    detail: str = ""

    @property
    def met(self):
        """None: it has no limit."""
        if self.at_least is not None:
            return self.ratio >= self.at_least
        return self.ratio <= self.at_most if self.at_most is not None else None

    def limit(self):
        if self.at_least is not None:
            return "≥ %.4g" % self.at_least
        return "≤ %.4g" % self.at_most if self.at_most is not None else "–"

    def as_json(self):
        limit = {key: value for key, value in (("at_least", self.at_least),
                                               ("at_most", self.at_most)) if value is not None}
        return {"part": self.part, "name": self.name, "value": self.value, "unit": self.unit,
                "ratio": self.ratio, "of": self.of, "limit": limit or None, "met": self.met,
                "runs": self.runs, "detail": self.detail}


class Report:
    def __init__(self, facts):
        self.facts = dict(facts)  # of the machine and the build; in the order they are told
        self.outcomes, self.figures, self.not_measured = [], [], []
        self.notes = []

    def outcome(self, part, name, outcome, seconds=0, detail=""):
        self.outcomes.append(Outcome(part, name, outcome, seconds, detail))

    def figure(self, part, name, value, unit, **more):
        figure = Figure(part, name, value, unit, **more)
        numbers = [x for x in (figure.value, figure.ratio) if x is not None]
        if not all(math.isfinite(x) for x in numbers):
            self.missing_figure(part, name, "gave %r, ratio %r" % (value, figure.ratio))
            return
        self.figures.append(figure)

    def missing_figure(self, part, name, reason):
        self.not_measured.append({"part": part, "name": name, "reason": reason})

    def failures(self):
        """What keeps the run from being good; what was skipped does not."""
        return (["%s: %s" % (o.name, o.outcome) for o in self.outcomes
                 if o.outcome not in (PASSED, PART, SKIPPED)]
                + ["%s: limit not met" % f.name for f in self.figures if f.met is False]
                + ["%s: not measured" % m["name"] for m in self.not_measured])

    # Forms

    def as_json(self):
        return json.dumps(
            {**self.facts, "good": not self.failures(), "notes": self.notes,
             "tests": [dataclasses.asdict(o) for o in self.outcomes],
             "figures": [f.as_json() for f in self.figures],
             "not_measured": self.not_measured}, indent=1, ensure_ascii=False) + "\n"

    def page(self):
        lines = ["# The CUDA worker on a GPU", "",
                 "Written by `tools/gpu_check`; [README.md](README.md) says what each line means."
                 " All of it is from one run.", "", "| | |", "|---|---|"]
        lines += ["| %s | %s |" % (key.replace("_", " "), _cell(value))
                  for key, value in self.facts.items()]
        lines += ["", *(note + "\n" for note in self.notes)]
        lines += ["## Tests", "", "| | outcome | s | |", "|---|---|---|---|"]
        lines += ["| %s | %s | %.1f | %s |" % (_cell(o.name), o.outcome, o.seconds, _cell(o.detail))
                  for o in self.outcomes]
        if self.figures:
            lines += ["", "## Figures", "", "| | value | ratio | limit | met | |",
                      "|---|---|---|---|---|---|"]
        lines += ["| %s | %s | %s | %s | %s | %s |" % (
            _cell(f.name), _value(f), _ratio(f), f.limit(), _met(f), _cell(f.detail))
            for f in self.figures]
        if self.not_measured:
            lines += ["", "## Not measured", "", "| | why |", "|---|---|"]
            lines += ["| %s | %s |" % (_cell(m["name"]), _cell(m["reason"]))
                      for m in self.not_measured]
        failures = self.failures()
        lines += ["", "All passed, all limits are met." if not failures else
                  "**Not good:** %s." % "; ".join(map(_cell, failures))]
        return "\n".join(lines) + "\n"

    def table(self):
        rows = [[o.name, o.outcome, "%.1f s" % o.seconds, o.detail] for o in self.outcomes]
        rows += [[f.name, _value(f), _ratio(f), "%s %s" % (f.limit(), _met(f))]
                 for f in self.figures]
        rows += [[m["name"], "not measured", "", m["reason"]] for m in self.not_measured]
        widths = [max((len(row[i]) for row in rows), default=0) for i in range(3)]
        return "\n".join(("  ".join(map(str.ljust, row, [*widths, 0]))).rstrip() for row in rows)

    def write(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.json").write_text(self.as_json())
        (folder / "REPORT.md").write_text(self.page())


def _cell(value):
    return " ".join(str(value).split()).replace("|", "\\|")


def _value(figure):
    return "%.4g %s" % (figure.value, figure.unit)


def _ratio(figure):
    if figure.ratio is None:
        return ""
    return "%.3g%s" % (figure.ratio, " of " + figure.of if figure.of else "")


def _met(figure):
    return {True: "met", False: "NOT MET", None: ""}[figure.met]
