"""Medians with their spread, ratios of pairs that ran in the same round, and the doubts."""

from collections import Counter
from statistics import median

# A figure whose rounds lie further apart than this share of the median is marked.
SPREAD = 0.10


def work(title, work, results):
    """The lines of one work. `results`: product → list of rounds, each figures or a string that says why there are none."""
    lines = ["", f"## {work.name}: {title}", ""]
    if work.memory:
        lines += memory_table(work, results)
    elif work.latency:
        lines += latency_table(results)
    else:
        lines += cost_table(work, results)
    return lines + notes(work, results)


def cost_table(work, results):
    head = ["product", f"CPU µs/{work.unit}", f"{work.unit}s/s", f"calls/{work.unit}", "busy", "RSS MiB", "PSS MiB",
            "peak MiB"]
    rows = []
    for name, rounds in good(results):
        calls = [figures["calls"] for figures in rounds if figures.get("calls") is not None]
        rows.append([name, spread(rounds, "cpu", 2), spread(rounds, "rate", 0), f"{calls[0]:.2f}" if calls else "–",
                     *(middle(rounds, key, scale, digits) for key, scale, digits in
                       (("full", 100, "0f"), ("resident", 1 / 1024, "1f"), ("proportional", 1 / 1024, "1f"),
                        ("peak", 1 / 1024, "1f")))])
        rows[-1][4] += " %" if rows[-1][4] != "–" else ""
    return table(head, rows) + ratios(results, [("CPU", "cpu"), ("rate", "rate"), ("RSS", "resident")])


def latency_table(results):
    rows = []
    direct = [figures for figures in results.get("direct", [])]
    for name, rounds in good(results):
        row = [name, spread(rounds, "p50", 1), spread(rounds, "p99", 1)]
        for key in ("p50", "p99"):
            added = [mine[key] - base[key] for mine, base in zip(results[name], direct)
                     if isinstance(mine, dict) and isinstance(base, dict)]
            row.append(interval(added, 1) if added and name != "direct" else "–")
        rows.append(row + [middle(rounds, "cpu", 1, "2f")])
    return table(["product", "p50 µs", "p99 µs", "added p50", "added p99", "CPU µs/request"], rows)


def memory_table(work, results):
    head = ["product", "RSS MiB", "PSS MiB"] + ([] if work.empty else ["RSS KiB/connection", "PSS KiB/connection"])
    rows = []
    for name, rounds in good(results):
        row = [name, middle(rounds, "resident", 1 / 1024, "1f"), middle(rounds, "proportional", 1 / 1024, "1f")]
        rows.append(row if work.empty else row + [middle(rounds, "each", 1, "1f"),
                                                  middle(rounds, "each proportional", 1, "1f")])
    return table(head, rows)


def ratios(results, figures):
    """Ours by theirs, from rounds that both have: what the machine did to one it mostly did to the other."""
    rows, ours = [], results.get("spanmesh", [])
    for name in results:
        if name in ("spanmesh", "direct"):
            continue
        row = [f"spanmesh / {name}"]
        for _, key in figures:
            pairs = [mine[key] / other[key] for mine, other in zip(ours, results[name])
                     if isinstance(mine, dict) and isinstance(other, dict) and other.get(key)]
            row.append(interval(pairs, 2) if pairs else "–")
        rows.append(row)
    return [""] + table(["ratio"] + [title for title, _ in figures], rows) if rows and ours else []


def notes(work, results):
    """What failed, and what is not to be trusted and why."""
    lines = []
    for name, rounds in results.items():
        why = Counter(figures for figures in rounds if isinstance(figures, str))
        lines += [f"- {name} FAILED, {count} of {len(rounds)} rounds: {reason}" for reason, count in why.items()]
        seen = [figures for figures in rounds if isinstance(figures, dict)]
        kind = lambda doubt: doubt.rstrip("0123456789% ").split("only")[0]
        doubts = Counter(kind(doubt) for figures in seen for doubt in set(figures["doubts"]))
        said = {kind(doubt): doubt for figures in seen for doubt in figures["doubts"]}
        if doubts:
            why = "; ".join(f"{said[doubt]} ({count} of {len(rounds)} rounds)" for doubt, count in doubts.items())
            lines.append(f"- {name} is not to be trusted: {why}")
        # How much goes through without a proxy says only that it is enough.
        if name == "direct" and not work.latency:
            continue
        for key in ("p50",) if work.latency else ("cpu", "rate"):
            values = [figures[key] for figures in seen if key in figures]
            if len(values) > 1 and median(values) and (max(values) - min(values)) / median(values) > SPREAD:
                lines.append(f"- {name} is not to be trusted: the rounds' {key} differ by "
                             f"{(max(values) - min(values)) / median(values):.0%}")
    return [""] + lines if lines else []


def good(results):
    for name, rounds in results.items():
        seen = [figures for figures in rounds if isinstance(figures, dict)]
        if seen:
            yield name, seen


def middle(rounds, key, scale, digits):
    values = [figures[key] * scale for figures in rounds if key in figures]
    return format(median(values), f",.{digits}") if values else "–"


def spread(rounds, key, digits):
    return interval([figures[key] for figures in rounds], digits)


def interval(values, digits):
    if len(values) == 1:
        return f"{values[0]:,.{digits}f}"
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f}–{max(values):,.{digits}f})"


def table(head, rows):
    """Markdown, aligned so that it can be read as it is."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    line = lambda cells: "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths)) + " |"
    return [line(head), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(line, rows)]
