"""What a comparison's page adds to the style sheets of all pages and of charts."""

COMPARISON_STYLE = """
.runs { columns: 2; column-gap: 2rem; padding: 0; margin: 1rem 0; list-style: none; }
.runs li { break-inside: avoid; padding: .15rem 0; display: flex; gap: .6rem; align-items: center; }
.runs svg { width: 2.4rem; height: .8rem; flex: none; }
.runs b { color: var(--c); min-width: 1.1rem; text-align: right; }
.runs .faint { font-size: .85rem; }
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
  .wide tbody th { white-space: normal; min-width: 8.5rem; max-width: 10.5rem; }
}
@media print { .over-updates { display: block !important; } .axes label { display: none; } }
"""
