"""The page's frame and its style sheet: nothing in it comes from a run."""

FRAME = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
{head}<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""

# The policy above forbids every request and every script, whatever a run's texts contain.

STYLE = """
:root {
  --paper: #ffffff; --ink: #1f2328; --faint: #5f6773; --line: #e1e4e8; --band: #f6f7f9;
  --blue: #0072b2; --good: #00704f; --bad: #b3261e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #16181d; --ink: #e6e8eb; --faint: #9aa3af; --line: #2f343d; --band: #1f2229;
    --blue: #56b4e9; --good: #4cc38a; --bad: #ff8a80;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink); overflow-wrap: anywhere;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
}
main { max-width: 60rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0; }
h2 { font-size: 1.2rem; margin: 2.75rem 0 .75rem; }
p { margin: .5rem 0; }
.state { font-weight: 600; margin-top: .35rem; }
.finished { color: var(--good); }
.unfinished, .bad { color: var(--bad); }
.faint { color: var(--faint); }
.numbers {
  display: grid; grid-template-columns: repeat(4, 1fr);
  gap: 1px; margin: 1.5rem 0 0; background: var(--line); border: 1px solid var(--line);
}
.numbers > div { background: var(--paper); padding: .7rem .9rem; }
.numbers dt { color: var(--faint); font-size: .85rem; }
.numbers dd { margin: 0; font-size: 1.45rem; font-weight: 600; line-height: 1.3; }
.numbers dd + dd { font-size: .82rem; font-weight: 400; color: var(--faint); }
figure { margin: 1rem 0; }
figure img { display: block; width: 100%; height: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .4rem .75rem .4rem 0; border-bottom: 1px solid var(--line); }
th { color: var(--faint); font-weight: 400; }
thead th { font-size: .85rem; }
table + table { margin-top: 1.5rem; }
.figures th { width: 15rem; }
.phases th, .phases td { white-space: nowrap; }
.phases .share { width: 45%; padding-right: 0; }
.wide { overflow-x: auto; }
.bar { display: block; height: .7rem; margin-top: .45rem; background: var(--blue); min-width: 1px; }
.samples td { width: 26%; white-space: pre-wrap; }
.samples .source { width: 48%; font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: .8rem; }
details { border-bottom: 1px solid var(--line); padding: .5rem 0; }
summary { cursor: pointer; }
pre {
  background: var(--band); padding: .9rem; margin: .6rem 0; overflow-x: auto; white-space: pre-wrap;
  font: .8rem/1.45 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
}
@media (max-width: 40rem) {
  main { padding: 1.25rem 1rem 3rem; }
  h1 { font-size: 1.45rem; }
  .numbers { grid-template-columns: 1fr 1fr; }
  .numbers dd { font-size: 1.2rem; }
  .figures th { width: 45%; }
  .phases .share { width: 30%; }
  .samples thead { display: none; }
  .samples tr, .samples td { display: block; width: auto; }
  .samples tr { border-bottom: 1px solid var(--line); padding: .75rem 0; }
  .samples td, .samples .source { border: 0; padding: .15rem 0; width: auto; }
  .samples td + td { margin-top: .5rem; }
  .samples td::before {
    content: attr(data-label); display: block; color: var(--faint);
    font: .8rem system-ui, sans-serif;
  }
}
@media print {
  main { max-width: none; padding: 0; }
  h2 { break-after: avoid; }
  figure, tr, .numbers > div { break-inside: avoid; }
  body { font-size: 10.5pt; }
  .bar { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""

# Okabe and Ito's colours, the pale ones darker on paper and the dark ones lighter at night.
CHART_STYLE = """
:root {
  --c1: #0072b2; --c2: #d55e00; --c3: #009e73; --c4: #b8578f; --c5: #b57f00; --c6: #3a9bd9; --c7: #1f2328; --c8: #7a7a00;
}
@media (prefers-color-scheme: dark) {
  :root {
    --c1: #4aa3df; --c2: #f28e4b; --c3: #2fc79a; --c4: #e29ac4; --c5: #e6a800; --c6: #9ad4f5; --c7: #e6e8eb; --c8: #d6d04a;
  }
}
.c1 { --c: var(--c1); } .c2 { --c: var(--c2); } .c3 { --c: var(--c3); } .c4 { --c: var(--c4); }
.c5 { --c: var(--c5); } .c6 { --c: var(--c6); } .c7 { --c: var(--c7); } .c8 { --c: var(--c8); }
.plot polyline, .runs polyline { fill: none; stroke: var(--c); stroke-width: 2; vector-effect: non-scaling-stroke; stroke-linejoin: round; }
.plot polyline.dot { stroke-width: 8; stroke-linecap: round; stroke-dasharray: none; }
.grid { stroke: var(--line); stroke-width: 1; vector-effect: non-scaling-stroke; }
.chart { margin: 1.5rem 0 2.25rem; }
.chart figcaption { font-weight: 600; margin-bottom: .6rem; }
.chart figcaption .faint { font-weight: 400; font-size: .85rem; }
.plot { position: relative; height: 15rem; margin: 0 1.9rem 0 3.6rem; border-bottom: 1px solid var(--faint); }
.plot svg { display: block; width: 100%; height: 100%; overflow: visible; clip-path: inset(-2px -8px -1px); }
.plot span, .plot b, .xname { position: absolute; font-size: .8rem; line-height: 1; white-space: nowrap; color: var(--faint); }
.plot .y { right: calc(100% + .5rem); transform: translateY(50%); }
.plot .x { top: calc(100% + .45rem); transform: translateX(-50%); }
.plot .end { left: calc(100% + .4rem); transform: translateY(50%); color: var(--c); font-weight: 700; }
.xname { position: static; margin: 1.5rem 1.9rem 0 3.6rem; text-align: right; }
.worded .plot, .worded .xname { margin-right: 8.5rem; }
@media (max-width: 40rem) {
  .plot, .xname { margin-left: 3.2rem; }
  .worded .plot, .worded .xname { margin-right: 7rem; }
}
"""
