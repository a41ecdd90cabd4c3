"""Reads Prometheus' text format 0.0.4 as strictly as its specification allows, and more so:

every family has HELP, TYPE and samples, in this order and in one piece; buckets and counters, but
for those of joules, are whole numbers; histograms are complete and add up.
"""

import math
import re

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
SAMPLE = re.compile(r"(%s)(?:\{(.*)\})? (\S+)" % NAME)
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"(,|$)')
ESCAPES = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}


class Family:
    def __init__(self, name, help_text):
        self.name, self.help, self.type = name, help_text, None
        self.samples = {}  # (name, labels as sorted pairs) -> value

    def value(self, **labels):
        """Of the one sample with these labels and perhaps others; not of a histogram."""
        return self._one(self.name, labels)

    def count(self, **labels):
        return self._one(self.name + "_count", labels)

    def sum(self, **labels):
        return self._one(self.name + "_sum", labels)

    def bounds(self):
        """The `le` of a histogram with one set of labels, as they are written."""
        return [dict(labels)["le"] for name, labels in self.samples if name.endswith("_bucket")]

    def labels(self):
        """The label sets of all samples."""
        return [dict(labels) for _, labels in self.samples]

    def _one(self, name, labels):
        found = [value for (sample, pairs), value in self.samples.items()
                 if sample == name and labels.items() <= dict(pairs).items()]
        assert len(found) == 1, (name, labels, found)
        return found[0]


def parse(text):
    """{name: Family}. Raises AssertionError that names the line."""
    assert text.endswith("\n") and "\r" not in text
    families, family = {}, None
    for line in text[:-1].split("\n"):
        try:
            if line.startswith("# HELP "):
                assert family is None or family.samples, "the family before has no samples"
                name, help_text = line[len("# HELP "):].split(" ", 1)
                assert re.fullmatch(NAME, name) and name not in families and help_text
                family = families[name] = Family(name, help_text)
            elif line.startswith("# TYPE "):
                name, kind = line[len("# TYPE "):].split(" ")
                assert name == family.name and family.type is None and not family.samples
                assert kind in ("counter", "gauge", "histogram")
                family.type = kind
            else:
                _add_sample(family, line)
        except (AssertionError, AttributeError, ValueError) as error:
            raise AssertionError("line %r: %s" % (line, error)) from error
    for family in families.values():
        if family.type == "histogram":
            _check_histogram(family)
    return families


def _add_sample(family, line):
    name, labels, value = SAMPLE.fullmatch(line).groups()
    suffixes = ("_bucket", "_sum", "_count") if family.type == "histogram" else ("",)
    assert name in [family.name + suffix for suffix in suffixes]
    pairs, rest = [], labels or ""
    while rest:
        match = LABEL.match(rest)
        pairs.append((match[1], re.sub(r"\\.", lambda m: ESCAPES[m[0]], match[2])))
        rest = rest[match.end():]
        assert (match[3] == ",") == bool(rest)
    key = (name, tuple(sorted(pairs)))
    assert len(dict(pairs)) == len(pairs) and key not in family.samples, "twice"
    number = float(value)
    if family.type == "counter" or name.endswith(("_bucket", "_count")):
        whole = not name.endswith("_joules_total")
        assert number >= 0 and (re.fullmatch("[0-9]+", value) or not whole)
    assert math.isfinite(number)
    family.samples[key] = number


def _check_histogram(family):
    groups = {}
    for (name, pairs), value in family.samples.items():
        group = groups.setdefault(tuple(p for p in pairs if p[0] != "le"), {"buckets": []})
        if name.endswith("_bucket"):
            group["buckets"].append((float(dict(pairs)["le"]), value))
        else:
            group[name[len(family.name):]] = value
    for group in groups.values():
        bounds = [bound for bound, _ in group["buckets"]]
        counts = [count for _, count in group["buckets"]]
        assert bounds == sorted(set(bounds)) and bounds[-1] == math.inf, family.name
        assert counts == sorted(counts) and counts[-1] == group["_count"], family.name
        assert "_sum" in group, family.name
