"""The style sheet: system fonts with Chinese ones, light and dark, narrow screens, print."""

from __future__ import annotations

STYLE = """\
:root { color-scheme: light dark; --page: #fbfaf8; --card: #fff; --ink: #1d2126; --soft: #5b636d; --line: #dcdfe3;
  --plain: #4a78b5; --train: #3b6fb0; --validation: #2f9e8f; --dropped: #d99a2b; --quarantined: #c8503f;
  --missing: #7d2fb0; --mark: #fdf3d0; --good: #1f7a4d; --more: #cdeed6;
  --less: #f8d2cc; }
@media (prefers-color-scheme: dark) { :root { --page: #15181c; --card: #1d2126; --ink: #e6e8ea; --soft: #9aa3ad;
  --line: #343a42; --plain: #6f9fdc; --train: #6b9bd8; --validation: #4fc0af; --dropped: #e0ad4e;
  --quarantined: #e2776a; --missing: #c08be6; --mark: #3a3420; --good: #5cc08f;
  --more: #1f4d33; --less: #5c2a24; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI",
  Roboto, "PingFang SC", "Hiragino Sans GB", "Microsoft YaHei", "Noto Sans CJK SC", "Source Han Sans SC",
  "WenQuanYi Micro Hei", sans-serif; }
main, header, footer { max-width: 64rem; margin: 0 auto; padding: 0 1rem; }
header { padding-top: 2rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 0 0 .8rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .5rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1.2rem 1.3rem;
  margin: 1.2rem 0; }
p { margin: .4rem 0; }
.soft, figcaption, footer { color: var(--soft); font-size: .9rem; }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", "Noto Sans Mono CJK SC",
  "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", monospace; font-size: .86rem; }
code { overflow-wrap: anywhere; }
pre { overflow-x: auto; margin: .5rem 0; padding: .7rem .9rem; background: var(--page); border-radius: 6px;
  border: 1px solid var(--line); }
.state { display: inline-block; padding: .1rem .6rem; border-radius: 1rem; font-size: .9rem; font-weight: 600;
  border: 1px solid currentColor; }
.done { color: var(--good); } .open { color: var(--dropped); } .bad { color: var(--quarantined); }
dl.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .8rem; margin: 1.2rem 0; }
dl.tiles div { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .7rem .9rem; }
dl.tiles dt { color: var(--soft); font-size: .85rem; }
dl.tiles dd { margin: 0; font-size: 1.25rem; font-weight: 600; font-variant-numeric: tabular-nums; }
dl.tiles dd small { display: block; font-size: .8rem; font-weight: 400; color: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .95rem; font-variant-numeric: tabular-nums; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
thead:not(:has(th:not(:empty))) { display: none; }
th, td { text-align: left; padding: .32rem .9rem .32rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
tbody th { font-weight: 500; overflow-wrap: anywhere; min-width: min(13rem, 32vw); }
th:last-child, td:last-child { padding-right: 0; }
thead th { color: var(--soft); font-size: .85rem; font-weight: 600; vertical-align: bottom; }
.number { text-align: right; white-space: nowrap; }
tr.sum th, tr.sum td { border-top: 2px solid var(--ink); font-weight: 700; }
td.bars { width: 22%; min-width: 4rem; }
svg { display: block; width: 100%; }
.bar { height: .55rem; margin-top: .55rem; } .stacked { height: 1.4rem; border-radius: 5px; margin: .2rem 0 .9rem; }
.key { display: inline-block; width: .75rem; height: .75rem; border-radius: 3px; margin-right: .45rem; }
.fill-plain { fill: var(--plain); background: var(--plain); }
.fill-train { fill: var(--train); background: var(--train); }
.fill-validation { fill: var(--validation); background: var(--validation); }
.fill-dropped { fill: var(--dropped); background: var(--dropped); }
.fill-quarantined { fill: var(--quarantined); background: var(--quarantined); }
.fill-missing { fill: var(--missing); background: var(--missing); }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); gap: 1.2rem; }
figure { margin: 0; min-width: 0; }
.histogram { height: 9rem; fill: var(--plain); border-bottom: 1px solid var(--soft); }
.axis { position: relative; height: 1.4rem; font-size: .78rem; color: var(--soft); }
.axis span { position: absolute; }
.area { position: relative; margin-left: 3.6rem; }
table.tight tbody th { min-width: 0; }
.plot { height: 13rem; overflow: visible; } .charts .plot { height: 9rem; }
.plot path { fill: none; vector-effect: non-scaling-stroke; }
.plot .grid { stroke: var(--line); stroke-width: 1; } .plot .mark { stroke: var(--soft); stroke-dasharray: 3 4; }
.plot .curve { stroke-width: 1.8; stroke-linejoin: round; stroke-linecap: round; }
.plot .dots { stroke-width: 7; stroke-linecap: round; }
.plot .band { stroke: none !important; opacity: .2; } .plot .hint { fill: transparent; }
.plot .hint:hover { fill: var(--soft); opacity: .25; }
.stroke-plain { stroke: var(--plain); } .stroke-train { stroke: var(--train); }
.stroke-validation { stroke: var(--validation); } .stroke-dropped { stroke: var(--dropped); }
.plot .band.stroke-plain { fill: var(--plain); } .plot .band.stroke-train { fill: var(--train); }
.plot .band.stroke-validation { fill: var(--validation); } .plot .band.stroke-dropped { fill: var(--dropped); }
.heights span { position: absolute; right: calc(100% + .5rem); transform: translateY(-50%); font-size: .78rem;
  color: var(--soft); white-space: nowrap; font-variant-numeric: tabular-nums; }
.ends { display: flex; justify-content: space-between; font-size: .78rem; color: var(--soft); margin-top: .2rem; }
figure .ends { margin-left: 3.6rem; } figure h3 { margin-top: .6rem; }
.legend { font-weight: 400; font-size: .85rem; color: var(--soft); margin: 0 .9rem 0 0; white-space: nowrap; }
h3 .legend:first-of-type { margin-left: .9rem; }
.timeline { height: 2.4rem; background: var(--page); border: 1px solid var(--line); border-radius: 5px; }
.sample { border-left: 3px solid var(--line); padding: .1rem 0 .1rem .9rem; margin: .8rem 0; }
.sample.changed { border-color: var(--plain); } .sample.kept { border-color: var(--train); }
.sample.dropped { border-color: var(--dropped); } .sample.quarantined { border-color: var(--quarantined); }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); gap: 0 1.2rem; }
.words { white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate; margin: .15rem 0; }
.code { font: .7rem ui-monospace, monospace; background: var(--mark); border-radius: 3px; padding: 0 .2rem; }
ins, del { text-decoration: none; border-radius: 2px; background: var(--more); }
del { background: var(--less); }
summary { cursor: pointer; font-weight: 600; }
footer { padding-bottom: 2rem; }
@media (max-width: 34rem) { section { padding: 1rem; border-radius: 0; margin-left: -1rem; margin-right: -1rem;
  border-left: 0; border-right: 0; } .bars { display: none; } th, td { padding-right: .6rem; } }
@media print { body { background: #fff; font-size: 11px; } section, .sample, figure, tr { break-inside: avoid; }
  section { border: 0; padding: 0; } .scroll { overflow: visible; } section.long { break-inside: auto; } }
"""
