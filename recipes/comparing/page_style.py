"""What a comparison's page adds to the style sheet of all pages."""

# Okabe and Ito's colours, the pale ones darker on paper and the dark ones lighter at night.
COMPARISON_STYLE = """
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
.runs { columns: 2; column-gap: 2rem; padding: 0; margin: 1rem 0; list-style: none; }
.runs li { break-inside: avoid; padding: .15rem 0; display: flex; gap: .6rem; align-items: center; }
.runs svg { width: 2.4rem; height: .8rem; flex: none; }
.runs b { color: var(--c); min-width: 1.1rem; text-align: right; }
.runs .faint { font-size: .85rem; }
polyline { fill: none; stroke: var(--c); stroke-width: 2; vector-effect: non-scaling-stroke; stroke-linejoin: round; }
polyline.dot { stroke-width: 8; stroke-linecap: round; stroke-dasharray: none; }
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
.axes { margin: 1rem 0; }
.axis { position: absolute; opacity: 0; }
.axis + label { display: inline-block; padding: .25rem .8rem; border: 1px solid var(--line); cursor: pointer; margin: 0 .3rem .3rem 0; }
.axis:checked + label { background: var(--blue); border-color: var(--blue); color: var(--paper); }
.axis:focus-visible + label { outline: 2px solid var(--ink); }
.over { display: none; }
#over-updates:checked ~ .over-updates, #over-tokens:checked ~ .over-tokens, #over-seconds:checked ~ .over-seconds { display: block; }
.wide { overflow-x: auto; }
.wide table { width: auto; min-width: 100%; }
.wide th, .wide td { white-space: nowrap; padding-right: 1.1rem; }
.wide td.long { white-space: normal; min-width: 9rem; max-width: 20rem; }
.wide tbody th, .wide thead th:first-child { position: sticky; left: 0; background: var(--paper); }
.wide th b { color: var(--c); }
.best { font-weight: 700; color: var(--good); }
@media (max-width: 40rem) {
  .runs { columns: 1; }
  .plot, .xname { margin-left: 3.2rem; }
  .wide tbody th { white-space: normal; min-width: 8.5rem; max-width: 10.5rem; }
}
@media print { .over-updates { display: block !important; } .axes label { display: none; } }
"""
