"""The style and the script of a report's page."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fdfdfb; --ink: #1d1f23; --faint: #686d76; --line: #d9dbd8; --good: #17663a;
  --bad: #a1260d; --fault: #fbe3dc; --grown: #fdf3dc;
  --s0: #e9f2ec; --s1: #f6efd6; --s2: #f6e4b4; --s3: #f6d790; --s4: #f4c36c; --s5: #efa950;
  --s6: #e58a3e; --s7: #d3652f; --s8: #b44124; --s9: #85200f;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #16181c; --ink: #e6e6e3; --faint: #9aa0a8; --line: #34383f; --good: #79cf9c;
    --bad: #ff9279; --fault: #48221b; --grown: #3c321b;
    --s0: #1c2a23; --s1: #2c2a20; --s2: #3d3420; --s3: #534022; --s4: #6e4c23; --s5: #8b5825;
    --s6: #ac672b; --s7: #cd7a38; --s8: #ea9a58; --s9: #ffc695;
  }
}
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 92rem; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.4rem; line-height: 1.3; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2rem 0 0; }
p { margin: .25rem 0 .75rem; color: var(--faint); }
.good { color: var(--good); }
.bad { color: var(--bad); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: 0 0 1.5rem; }
dt { color: var(--faint); }
dd { margin: 0; overflow-wrap: anywhere; }
.maps { display: grid; gap: 0 2rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 34rem), 1fr)); }
.maps section { min-width: 0; }
.scroll { overflow: auto; max-width: 100%; }
.tall { max-height: 80vh; border: 1px solid var(--line); }
table { border-collapse: separate; border-spacing: 0; font-variant-numeric: tabular-nums; }
.map { border-spacing: 2px; font-size: .8rem; }
.map thead th { vertical-align: bottom; font-weight: normal; padding: 0 0 .25rem; }
.map thead span { writing-mode: vertical-rl; transform: rotate(180deg); white-space: pre;
  max-height: 9rem; overflow: hidden; }
.map th[scope=row] { position: sticky; left: 0; background: var(--paper); text-align: right;
  font-weight: normal; padding: 0 .6rem 0 0; white-space: nowrap; }
.map td { min-width: 2.1rem; height: 1.45rem; text-align: center; border-radius: 3px; }
.map td:focus { outline: 3px solid var(--ink); outline-offset: -1px; }
.map .beyond { box-shadow: inset 0 0 0 2px var(--ink); }
.said { min-height: 1.5em; color: var(--ink); }
.legend { display: flex; flex-wrap: wrap; list-style: none; padding: 0; margin: 0 0 .25rem;
  font-size: .8rem; }
.legend li { min-width: 3.2rem; height: 1.45rem; line-height: 1.45rem; text-align: center; }
.s0 { background: var(--s0); } .s1 { background: var(--s1); } .s2 { background: var(--s2); }
.s3 { background: var(--s3); } .s4 { background: var(--s4); } .s5 { background: var(--s5); }
.s6 { background: var(--s6); } .s7 { background: var(--s7); } .s8 { background: var(--s8); }
.s9 { background: var(--s9); }
.s5, .s6 { color: #1d1f23; }
.s7, .s8, .s9 { color: #fff; }
@media (prefers-color-scheme: dark) {
  .s5, .s6 { color: #fff; }
  .s7, .s8, .s9 { color: #1d1f23; }
}
.values { font-size: .82rem; }
.values th, .values td { padding: .12rem .6rem; text-align: left; white-space: nowrap; }
.values thead { position: sticky; top: 0; background: var(--paper); z-index: 1; }
.values thead tr:last-child th { border-bottom: 1px solid var(--line); }
.values thead th { color: var(--faint); font-weight: normal; }
.values thead th[colspan] { text-align: center; }
.values tbody th { font-weight: normal; }
.values .figure { text-align: right; }
.values td.figure { font-family: ui-monospace, monospace; }
.fault { background: var(--fault); }
.fault .mark { color: var(--bad); font-weight: bold; }
.grown { background: var(--grown); }
"""

SCRIPT = """
for (const map of document.querySelectorAll('.map')) {
  const rows = [...map.tBodies[0].rows].map(row => [...row.cells].slice(1));
  const said = map.closest('section').querySelector('.said');
  let [y, x] = [0, 0];
  const go = (toY, toX) => {
    rows[y][x].tabIndex = -1;
    y = Math.max(0, Math.min(rows.length - 1, toY));
    x = Math.max(0, Math.min(rows[y].length - 1, toX));
    rows[y][x].tabIndex = 0;
    rows[y][x].focus();
  };
  const show = event => { said.textContent = event.target.title || '\\u00a0'; };
  if (rows[0].length) rows[0][0].tabIndex = 0;
  map.addEventListener('focusin', show);
  map.addEventListener('mouseover', show);
  map.addEventListener('keydown', event => {
    const moves = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]};
    const ends = {Home: [y, 0], End: [y, rows[y].length - 1]};
    const move = moves[event.key];
    if (move) go(y + move[0], x + move[1]);
    else if (ends[event.key]) go(...ends[event.key]);
    else return;
    event.preventDefault();
  });
}
"""
