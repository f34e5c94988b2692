"""A gate's Outcome -> JUnit XML, one test case for each bound, for the test pages of CI servers."""

from __future__ import annotations

import re
from xml.etree import ElementTree as Xml

from eval.gates.gate import BELOW, INCONCLUSIVE, Outcome

# Characters that XML 1.0 cannot hold, even escaped (section 2.2); a report's path or an id may contain them.
FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# A missed bound is a failure.  An inconclusive one is an error, because viewers show `skipped` as green although the
# process ends with 3.
TAGS = {BELOW: "failure", INCONCLUSIVE: "error"}


def to_junit(outcome: Outcome, suite: str = "gate") -> str:
    """The XML document.  It has no time and no host, so the same outcome gives the same text."""
    verdicts = [ruling.verdict for ruling in outcome.rulings]
    counts = {
        "tests": len(verdicts), "failures": verdicts.count(BELOW), "errors": verdicts.count(INCONCLUSIVE), "skipped": 0
    }  # fmt: skip
    attributes = {"name": _clean(suite)} | {key: str(count) for key, count in counts.items()}
    root = Xml.Element("testsuites", attributes)
    cases = Xml.SubElement(root, "testsuite", attributes)
    for ruling in outcome.rulings:
        case = Xml.SubElement(cases, "testcase", {"classname": _clean(suite), "name": _clean(ruling.title)})
        text = _clean(f"expected {ruling.expected}, found {ruling.found}")
        if ruling.verdict in TAGS:
            why = {"message": _clean(ruling.cause), "type": ruling.verdict}
            Xml.SubElement(case, TAGS[ruling.verdict], why).text = text
        else:
            Xml.SubElement(case, "system-out").text = text
    Xml.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + Xml.tostring(root, encoding="unicode") + "\n"


def _clean(text: str) -> str:
    return FORBIDDEN.sub("\ufffd", text)
