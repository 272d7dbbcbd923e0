"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const palette = ["#0072B2", "#D55E00", "#009E73", "#AA4499", "#B8860B", "#2E8BC8", "#B03A73", "#5566AA", "#8A8A2B", "#CC6677"]; // 3:1 on light and dark
  const SVG = "http://www.w3.org/2000/svg";
  const place = (r) => (r ? r[0] + r[1] / 1000 : ""); // by the best rank that it may have, then by the worst
  const columns = [ // head, text, what sorts if that is a number
    ["Rank", (p) => rank(p.rank), (p) => place(p.rank)],
    ["Method", (p) => p.method],
    ["Use", (p) => interval(p.use), (p) => p.use[0] ?? ""],
    ["Leakage", (p) => interval(p.leak), (p) => p.leak[0] ?? ""],
    ["Worst attacker", (p) => p.attacker],
    ["Of 10 clips", (p) => interval(p.ten), (p) => p.ten[0] ?? ""],
    ["Privacy rank", (p) => rank(p.privacy), (p) => place(p.privacy)],
    ["Flags", (p) => p.flags.join(", ")],
    ["Provider", (p) => p.provider],
    ["When", (p) => p.when],
  ];

  const shown = (x) => (x === null || x === undefined ? "-" : x.toFixed(2).replace(/^-(?=0\.00$)/, ""));
  const interval = (e) => (e[0] === null ? "-" : `${shown(e[0])} [${shown(e[1])}, ${shown(e[2])}]`);
  const rank = (r) => (!r ? "-" : r[0] === r[1] ? String(r[0]) : `${r[0]}-${r[1]}`);

  function element(name, attributes, parent, text) {
    const made = name.startsWith("svg:") ? document.createElementNS(SVG, name.slice(4)) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text; // never as HTML: names come from strangers
    if (parent) parent.append(made);
    return made;
  }

  function fill(select, options, chosen) {
    select.replaceChildren();
    options.forEach(([value, text]) => element("option", { value }, select, text));
    if (options.some(([value]) => String(value) === String(chosen))) select.value = chosen;
  }

  const board = () => data.boards[Number($("board").value)];
  const points = () => board().views[`${$("target").value}|${$("threat").value}`] || [];
  const visible = () => points().filter((p) => `${p.method} ${p.provider} ${p.attacker}`.toLowerCase().includes($("filter").value.toLowerCase()));
  const families = () => [...new Set(data.boards.flatMap((b) => Object.values(b.views).flat().map((p) => p.family)))];
  const colour = (p) => palette[families().indexOf(p.family) % palette.length];

  function chooseBoard() {
    const before = [$("target").value, $("threat").value];
    fill($("target"), board().targets.map((t) => [t, t]), before[0]);
    fill($("threat"), board().threats.map((t) => [t, t]), before[1] || board().ranking);
    draw();
  }

  function draw() {
    $("failed").replaceChildren();
    board().failed.forEach((line) => element("p", {}, $("failed"), `Control failed: ${line}`));
    const ranks = $("threat").value === board().ranking && $("target").value === data.all;
    $("level").textContent = ranks ? "This view ranks methods." : "This view does not rank: only the worst semi-informed attacker of all does.";
    hide();
    table();
    plot();
  }

  columns.forEach(([name, , key]) => element("th", key ? { scope: "col", "data-number": "" } : { scope: "col" }, $("methods").tHead.rows[0], name));
  const sort = sortable($("methods"), 0);

  function table() {
    const rows = visible().sort((a, b) => a.leak[0] - b.leak[0]); // of those that tie
    const body = $("methods").tBodies[0];
    body.replaceChildren();
    rows.forEach((p) => {
      const row = element("tr", {}, body);
      columns.forEach(([name, text, key]) => {
        const cell = element(name === "Method" ? "th" : "td", name === "Method" ? { scope: "row" } : {}, row);
        if (key) cell.dataset.key = key(p);
        if (name === "Method") element("a", { href: p.page }, cell, p.method);
        else cell.textContent = text(p);
      });
    });
    sort();
    $("count").textContent = `${rows.length} of ${points().length} methods shown`;
  }

  function plot() {
    const narrow = $("plot").clientWidth < 560;
    const wide = narrow ? 400 : 760, high = narrow ? 420 : 460, left = 62, right = 16, top = 12, bottom = 50;
    const rows = visible().filter((p) => p.use[0] !== null && p.leak[0] !== null);
    const most = Math.max(1.05, ...rows.map((p) => Math.max(p.use[0], Math.min(p.use[2] ?? 0, 1.6)) + 0.03)); // whole intervals, if not far out
    const least = Math.min(-0.03, ...rows.map((p) => Math.min(p.use[0], Math.max(p.use[1] ?? 0, -0.3)) - 0.03));
    const clamp = (v) => Math.min(Math.max(v, least), most);
    const x = (v) => left + ((clamp(v) - least) / (most - least)) * (wide - left - right);
    const y = (v) => high - bottom - ((Math.min(Math.max(v, -0.03), 1.03) + 0.03) / 1.06) * (high - top - bottom);
    const holder = $("plot");
    holder.replaceChildren();
    const svg = element("svg:svg", { viewBox: `0 0 ${wide} ${high}`, role: "group", "aria-label": "Use against leakage, a point a method; the table below holds the same numbers" }, holder);
    data.budgets.forEach((b) => element("svg:rect", { class: "budget", x: left, y: y(b), width: wide - left - right, height: y(0) - y(b) }, svg));
    for (let v = 0; v <= 1.001; v += 0.2) {
      element("svg:line", { class: "grid", x1: left, x2: wide - right, y1: y(v), y2: y(v) }, svg);
      element("svg:text", { x: left - 8, y: y(v) + 4, "text-anchor": "end" }, svg, v.toFixed(1));
    }
    for (let v = 0; v <= most; v += 0.2) {
      element("svg:line", { class: "grid", x1: x(v), x2: x(v), y1: top, y2: high - bottom }, svg);
      element("svg:text", { x: x(v), y: high - bottom + 18, "text-anchor": "middle" }, svg, v.toFixed(1));
    }
    element("svg:line", { class: "axis", x1: left, x2: wide - right, y1: y(0), y2: y(0) }, svg);
    element("svg:text", { x: (left + wide - right) / 2, y: high - 10, "text-anchor": "middle" }, svg, "use kept");
    element("svg:text", { transform: `translate(16 ${(high - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, svg, "leakage to the worst attacker");
    const target = $("target").value;
    const level = (of, kind) => Object.entries(of).filter(([name]) => target === data.all || name === target)
      .forEach(([, value]) => element("svg:line", { class: kind, x1: left, x2: wide - right, y1: y(value), y2: y(value) }, svg));
    level(board().rooms, "room");
    level(board().priors, "prior");
    for (const family of new Set(rows.map((p) => p.family))) {
      const curve = rows.filter((p) => p.family === family && p.strength !== null).sort((a, b) => a.strength - b.strength);
      if (curve.length > 1) element("svg:polyline", { fill: "none", stroke: colour(curve[0]), "stroke-width": 1.5, "stroke-dasharray": "1 4", "stroke-linecap": "round", points: curve.map((p) => `${x(p.use[0])},${y(p.leak[0])}`).join(" ") }, svg);
    }
    const spots = rows.map((p) => [x(p.use[0]), y(p.leak[0])]);
    const labels = rows.map((p) => [x(p.use[0]) - 9, y(p.leak[0]) - 9, x(p.use[0]) + 9, y(p.leak[0]) + 9]); // no label on a point
    rows.sort((a, b) => b.leak[0] - a.leak[0]).forEach((p) => {
      const at = [x(p.use[0]), y(p.leak[0])];
      const link = element("svg:a", { class: "point", href: p.page, "aria-label": words(p).join(". ") }, svg);
      if (p.use[1] !== null) element("svg:line", { stroke: colour(p), x1: x(p.use[1]), x2: x(p.use[2]), y1: at[1], y2: at[1] }, link);
      if (p.leak[1] !== null) element("svg:line", { stroke: colour(p), x1: at[0], x2: at[0], y1: y(p.leak[1]), y2: y(p.leak[2]) }, link);
      element("svg:circle", { cx: at[0], cy: at[1], r: 7, fill: p.flags.length ? "var(--paper)" : colour(p), stroke: colour(p), "stroke-width": 2 }, link);
      element("svg:circle", { cx: at[0], cy: at[1], r: reach(spots, at), fill: "transparent" }, link);
      link.addEventListener("mouseenter", (event) => tip(p, event.clientX, event.clientY));
      link.addEventListener("mouseleave", hide);
      link.addEventListener("focus", () => { const box = link.getBoundingClientRect(); tip(p, box.right, box.top); });
      link.addEventListener("blur", hide);
      link.addEventListener("pointerdown", (event) => { touched = event.pointerType === "touch"; });
      link.addEventListener("click", (event) => {
        if (!touched || tapped === p) return;
        event.preventDefault(); // a finger cannot hover: its first tap asks, its second follows
        const box = link.getBoundingClientRect();
        tip(p, box.right, box.top, "Tap again for its page.");
        tapped = p;
      });
      label(svg, labels, p, at, left, wide - right);
    });
  }

  // How far about a point it answers to a pointer: no further than half way to the next, so that none hides another.
  const reach = (spots, [px, py]) => Math.max(7, Math.min(16, ...spots.map(([ox, oy]) => Math.hypot(ox - px, oy - py) / 2).filter((d) => d > 0)));

  function label(svg, placed, p, at, least, most) {
    const text = p.method.length > 28 ? `${p.method.slice(0, 27)}…` : p.method;
    const size = text.length * 7;
    for (const [dx, dy] of [[12, -9], [12, 18], [-12, -9], [-12, 18], [12, -26], [12, 34], [-12, -26], [-12, 34], [-40, 50], [12, 50]]) {
      const from = dx > 0 ? at[0] + dx : at[0] + dx - size;
      const box = [from, at[1] + dy - 12, from + size, at[1] + dy + 3];
      const clear = placed.every((b) => box[2] < b[0] || box[0] > b[2] || box[3] < b[1] || box[1] > b[3]);
      if (clear && box[0] > least && box[2] < most && box[1] > 0) {
        placed.push(box);
        if (Math.abs(dy) > 20) element("svg:line", { stroke: colour(p), x1: at[0], y1: at[1], x2: dx > 0 ? from : from + size, y2: at[1] + dy + (dy < 0 ? 2 : -12) }, svg);
        element("svg:text", { x: from, y: at[1] + dy, "aria-hidden": "true" }, svg, text);
        return;
      }
    } // no room: the tooltip and the table name it
  }

  const words = (p) => [
    p.method,
    `use ${interval(p.use)}`,
    `leakage ${interval(p.leak)}, worst attacker ${p.attacker}`,
    ...(p.rank ? [`rank ${rank(p.rank)}, privacy rank ${rank(p.privacy)}`] : []),
    ...(p.flags.length ? [`flags: ${p.flags.join(", ")}`] : []),
    `by ${p.provider}`,
  ];

  let touched = false, tapped = null;

  function tip(p, px, py, more) {
    const box = $("tip");
    box.replaceChildren();
    [...words(p), ...(more ? [more] : [])].forEach((line) => element("p", {}, box, line));
    box.hidden = false;
    const size = box.getBoundingClientRect();
    box.style.left = `${Math.max(4, Math.min(px + 14, window.innerWidth - size.width - 4))}px`;
    box.style.top = `${Math.max(4, Math.min(py + 14, window.innerHeight - size.height - 4))}px`;
  }
  function hide() { $("tip").hidden = true; tapped = null; }

  fill($("board"), data.boards.map((b, i) => [i, b.name]));
  $("board").addEventListener("change", chooseBoard);
  $("target").addEventListener("change", draw);
  $("threat").addEventListener("change", draw);
  $("filter").addEventListener("input", draw);
  window.addEventListener("resize", plot);
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("pointerdown", (event) => { if (!event.target.closest(".point")) hide(); });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  chooseBoard();
  if (board().threats.includes(board().ranking)) { $("threat").value = board().ranking; draw(); }
})();
